"""bf16 where the processor multiplies in it."""

from pathlib import Path

import torch

from pgembed.training.options import Precision

_FLAGS = ("avx512_bf16", "amx_bf16")


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
