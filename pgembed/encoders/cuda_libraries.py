"""Which of CUDA's libraries cannot be loaded: ONNX Runtime falls back to the CPU and names none, or only the first."""

import ctypes
import mmap
import re
from pathlib import Path

# Names of shared libraries as an ELF file's string table has them, each between two NULs.
_SONAME = re.compile(rb"(?<=\0)lib(?:cu|nv)[A-Za-z_-]+\.so(?:\.\d+)+(?=\0)")
_DRIVER = "libcuda.so.1"


def missing_libraries(provider: Path) -> list[str]:
    """Return the libraries that `provider` (a shared library of ONNX Runtime) names and that cannot be loaded.

    The names are the file's own, so that another release's versions need no change here; the driver's library, which
    CUDA opens while it runs, is asked for as well.
    """
    with provider.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        names = {match.group().decode() for match in _SONAME.finditer(content)}
    return [name for name in sorted(names | {_DRIVER}) if not _loads(name)]


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
