"""How much the quickstart does, and how long that will take on this machine."""

import sysconfig
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

# Tests are half of the standard library; nobody searches it for them, and mining leaves them out anyway.
STANDARD_LIBRARY_EXCLUDES = ("test/", "tests/", "idle_test/", "config-*/")


@dataclass(frozen=True)
class Plan:
    """The sizes of one run. None means: all there is."""

    name: str
    corpus_bytes: int | None
    """Files are taken until this many bytes are reached; see `choose_files`."""
    evaluation_documents: int
    evaluation_queries: int
    training_steps: int
    training_batch: int
    """Triplets a step."""


# Sizes by which 2 cores of a server's processor with AVX-512 end in about 2, 7 and 25 minutes on the standard library;
# the limit that the default must keep is 10 minutes.
PLANS = {
    "quick": Plan("quick", 1_200_000, 400, 150, 40, 24),
    "default": Plan("default", 6_000_000, 1_000, 400, 120, 24),
    "thorough": Plan("thorough", None, 3_000, 1_000, 400, 32),
}

# What the reference machine did: the estimate is scaled from it by the rate of matrix products.
_REFERENCE_GFLOPS = 190.0
_CHUNKS_PER_SECOND = 42.0
_BODIES_PER_SECOND = 60.0
_TRIPLETS_PER_SECOND = 18.0
_BYTES_PER_CHUNK = 900.0
_FIXED_SECONDS = 45.0  # start, export twice, index, imports


def standard_library() -> Path:
    """Return the folder of the running Python's standard library."""
    return Path(sysconfig.get_path("stdlib")).resolve()


def choose_files(files: Mapping[str, int], held_out: Set[str], limit_bytes: int | None) -> set[str]:
    """Return the paths to take of `files` (path → bytes): all, or a sample that a second run chooses again.

    Up to a third of a sample is of the files that are held out from training: a tenth of a small sample would be too
    few queries to tell two models apart. The order is by the hash of the path, so that it depends neither on the file
    system nor on what else is there: one file more or less leaves the others chosen (up to the limit).
    """
    if limit_bytes is None:
        return set(files)
    measured = _sample({path: size for path, size in files.items() if path in held_out}, limit_bytes // 3)
    rest = limit_bytes - sum(files[path] for path in measured)
    return measured | _sample({path: size for path, size in files.items() if path not in held_out}, rest)


def _sample(files: Mapping[str, int], limit_bytes: int) -> set[str]:
    chosen: set[str] = set()
    total = 0
    for path in sorted(files, key=lambda path: sha256(path.encode("utf-8", "surrogateescape")).digest()):
        if not chosen or total + files[path] <= limit_bytes:
            chosen.add(path)
            total += files[path]
    return chosen


def measure_gflops() -> float:
    """Return this machine's rate of float32 matrix products, in 10⁹ operations a second; takes a third of a second."""
    n = 1024
    a = np.ones((n, n), dtype=np.float32)
    a @ a
    started = time.perf_counter()
    rounds = 0
    while time.perf_counter() - started < 0.3:
        a @ a
        rounds += 1
    return 2 * n**3 * rounds / (time.perf_counter() - started) / 1e9


def estimate_seconds(plan: Plan, corpus_bytes: int, gflops: float) -> float:
    """Return about how long `plan` takes over `corpus_bytes` of code on a machine of this speed."""
    chunks = corpus_bytes / _BYTES_PER_CHUNK
    documents = min(plan.evaluation_documents, chunks / 10) + plan.evaluation_queries / 4
    compute = (
        chunks / _CHUNKS_PER_SECOND
        + 2 * documents / _BODIES_PER_SECOND
        + plan.training_steps * plan.training_batch / _TRIPLETS_PER_SECOND
    )
    return _FIXED_SECONDS + compute * max(_REFERENCE_GFLOPS / gflops, 0.3)
