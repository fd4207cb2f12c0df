"""A session of ONNX Runtime for a graph, on the processor that was asked for or not at all."""

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pgembed.encoders.cuda_libraries import missing_libraries
from pgembed.errors import EncoderError, MissingExtra
from pgembed_code.installation import install_line, pip

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def available_threads() -> int:
    """Return the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def require_provider(provider: str) -> str:
    """Return ONNX Runtime's name of the provider.

    Raises:
        EncoderError: there is none of this name, or this ONNX Runtime is built without it.
        MissingExtra: ONNX Runtime is not installed.
    """
    if provider not in PROVIDERS:
        raise EncoderError(f"There is no provider {provider!r}.", remedy=f"There are {', '.join(PROVIDERS)}.")
    wanted = PROVIDERS[provider]
    if wanted not in import_onnxruntime().get_available_providers():
        raise EncoderError(
            f"This ONNX Runtime is built without {wanted}.",
            remedy=f"{pip('uninstall')} -y onnxruntime, then {install_line('onnx-gpu')}",
        )
    return wanted


def open_session(graph: Path, *, provider: str, threads: int) -> Any:
    """Open `graph` with `threads` threads for each run.

    Raises:
        EncoderError: the graph is broken, or the provider asked for is not the one that would run.
        MissingExtra: ONNX Runtime is not installed.
    """
    wanted = require_provider(provider)
    onnxruntime = import_onnxruntime()
    if provider == "cuda" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # from the packages nvidia-*, which are on no path that the loader searches
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin while they wait cost a fifth of the rate where Postgres needs a core too.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors: what it warns of is checked below
    try:
        session = onnxruntime.InferenceSession(str(graph), options, providers=[wanted])
    except Exception as error:
        raise EncoderError(f"{graph} cannot be loaded: {error}") from error
    # Without CUDA's libraries the GPU build runs on the CPU and says so on stderr at most: only this tells.
    running = session.get_providers()[0]
    if running != wanted:
        library = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
        missing = missing_libraries(library) if library.is_file() else []
        why = f" Missing: {', '.join(missing)}." if missing else ""
        raise EncoderError(
            f"{wanted} was asked for, and ONNX Runtime would run on {running}.{why}",
            remedy=f"Install the GPU build with CUDA 13 and cuDNN 9 ({install_line('onnx-gpu')}; libcuda.so.1 "
            "is the driver's), or ask for --provider cpu.",
        )
    return session


def quiet_run_options() -> Any:
    """Return options of a run that prints nothing: what fails is raised, and comes once for each half of a batch."""
    options = import_onnxruntime().RunOptions()
    options.log_severity_level = 4
    return options


def import_onnxruntime() -> Any:
    """Import ONNX Runtime.

    Raises:
        EncoderError: both builds of it are installed.
        MissingExtra: neither is.
    """
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if is_installed(name)]
    if len(installed) == 2:
        raise EncoderError(
            "onnxruntime and onnxruntime-gpu are both installed; they overwrite each other's files, "
            "and which of them runs is chance.",
            remedy=f"{pip('uninstall')} -y onnxruntime onnxruntime-gpu, then install one: {install_line('onnx')}, or "
            "onnx-gpu in its place",
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("onnx", "Embedding", str(error)) from error
    return onnxruntime


def is_installed(distribution: str) -> bool:
    """Tell whether a distribution is there, without importing it."""
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
