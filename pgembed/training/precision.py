"""bf16 where the processor multiplies in it, and the attention that is fastest in it."""

from pathlib import Path

import torch

from pgembed.training.options import Precision
from pgembed.training.towers import Attention

_FLAGS = ("avx512_bf16", "amx_bf16")
_EAGER_UP_TO = 512
"""Tokens. Forward and backward of MiniLM on a processor with avx512_bf16: fused attention takes 1.35 times as long at
32 to 128 tokens, 1.1 times at 512. In fp32 it takes 0.98 times as long at 128, and 0.72 times at 512."""


def resolve_precision(
    wanted: Precision, cpuinfo: Path = Path("/proc/cpuinfo"), *, device: torch.device | None = None
) -> Precision:
    """Return fp32 or bf16; `auto` is bf16 on a processor, or a GPU, that has instructions for it.

    Elsewhere bf16 is emulated, and slower than fp32.
    """
    if wanted != "auto":
        return wanted
    if device is not None and device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    try:
        flags = cpuinfo.read_text(encoding="utf-8").split()
    except OSError:  # not Linux
        return "fp32"
    return "bf16" if any(flag in flags for flag in _FLAGS) else "fp32"


def fastest_attention(precision: str, max_tokens: int, device: torch.device) -> Attention:
    """Return how to attend in training: by the fused kernel, but for bf16 on a processor, where it is slow."""
    return "eager" if precision == "bf16" and device.type == "cpu" and max_tokens <= _EAGER_UP_TO else "sdpa"
