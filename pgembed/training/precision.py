"""bf16 where the processor multiplies in it."""

from pathlib import Path

from pgembed.training.options import Precision

_FLAGS = ("avx512_bf16", "amx_bf16")


def resolve_precision(wanted: Precision, cpuinfo: Path = Path("/proc/cpuinfo")) -> Precision:
    """Return fp32 or bf16; `auto` is bf16 on a processor that has instructions for it.

    Elsewhere bf16 is emulated, and slower than fp32.
    """
    if wanted != "auto":
        return wanted
    try:
        flags = cpuinfo.read_text(encoding="utf-8").split()
    except OSError:  # not Linux
        return "fp32"
    return "bf16" if any(flag in flags for flag in _FLAGS) else "fp32"
