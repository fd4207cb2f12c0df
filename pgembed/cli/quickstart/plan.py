"""How much the quickstart does, and how long that will take on this machine."""

import sysconfig
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
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


PLANS = {
    "quick": Plan("quick", 1_200_000, 400, 150, 20, 48),
    "default": Plan("default", 6_000_000, 1_000, 400, 60, 48),
    "thorough": Plan("thorough", None, 3_000, 1_000, 200, 64),
}

DEFAULT_LIMIT_S = 9 * 60
"""The default ends within ten minutes on two cores; so it is made smaller where it would be expected to take more."""

# What the reference machine did (2 cores of an AMD EPYC with AVX-512 and bf16 units, nothing else running): estimates
# are scaled from it by the rate of matrix products.
_REFERENCE_GFLOPS = 190.0
_CHUNKS_PER_SECOND = 60.0
_TEXTS_PER_SECOND = 60.0
_TRIPLETS_PER_SECOND = 13.0
_BYTES_PER_CHUNK = 760.0
_FIXED_SECONDS = 35.0  # start, ingest, export twice, index, imports
_FP32_FACTOR = 1.7  # how much longer a training step takes where the processor does not multiply in bf16


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


def estimate_seconds(plan: Plan, corpus_bytes: int, gflops: float, *, bf16: bool, more_texts: int = 0) -> float:
    """Return about how long `plan` takes over `corpus_bytes` of code on a machine of this speed.

    `more_texts` are the queries and documents of data sets from outside, which both models embed.
    """
    chunks = min(corpus_bytes, plan.corpus_bytes or corpus_bytes) / _BYTES_PER_CHUNK
    measured = min(plan.evaluation_documents + plan.evaluation_queries, chunks / 3)
    training = plan.training_steps * plan.training_batch / _TRIPLETS_PER_SECOND * (1 if bf16 else _FP32_FACTOR)
    compute = chunks / _CHUNKS_PER_SECOND + 2 * (measured + more_texts) / _TEXTS_PER_SECOND + training
    return _FIXED_SECONDS + compute * max(_REFERENCE_GFLOPS / gflops, 0.3)


def fit(plan: Plan, corpus_bytes: int, gflops: float, *, bf16: bool) -> Plan:
    """Return the default plan as large as this machine does in time: whole, or with less code and fewer steps."""
    for share in (1.0, 0.7, 0.5, 0.35, 0.25):
        smaller = replace(
            plan,
            corpus_bytes=int((plan.corpus_bytes or corpus_bytes) * share),
            training_steps=int(plan.training_steps * share),
        )
        if estimate_seconds(smaller, corpus_bytes, gflops, bf16=bf16) <= DEFAULT_LIMIT_S:
            break
    return smaller
