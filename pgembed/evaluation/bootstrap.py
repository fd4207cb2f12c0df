"""How sure a mean over queries is, and a difference of two: the bootstrap, seeded, so that it repeats to the digit."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
LEVEL = 0.95
_SEED = 20_261_124
_BLOCK_CELLS = 4_000_000  # numbers gathered at a time: 32 MB, whatever the number of queries

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """The mean difference of two evaluations of the same queries, with its 95% interval and two-sided p."""

    difference: float
    low: float
    high: float
    p: float

    @property
    def worse(self) -> bool:
        """Whether the whole interval lies below zero."""
        return self.high < 0

    @property
    def better(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.low > 0


def bootstrap_means(scores: Floats, *, resamples: int = RESAMPLES, seed: int = _SEED) -> list[Interval]:
    """Return the mean and percentile interval of each column of `scores` (queries, metrics).

    All metrics are resampled by the same draws of queries.

    Raises:
        ValueError: there is no query.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13 (percentile interval).
    """
    low, high = _percentiles(_resampled_means(scores, resamples, seed))
    return [Interval(float(m), float(a), float(b)) for m, a, b in zip(scores.mean(axis=0), low, high, strict=True)]


def paired_bootstrap(a: Floats, b: Floats, *, resamples: int = RESAMPLES, seed: int = _SEED) -> list[PairedTest]:
    """Test `b` − `a`, both (queries, metrics) of the same queries in the same order, column by column.

    p is the share of resamples, drawn from the differences shifted to mean zero, whose mean is at least as far from
    zero as the one observed; never below 1 / (resamples + 1).

    Raises:
        ValueError: there is no query, or the shapes differ.

    Source: Efron and Tibshirani 1993, section 16.4; for retrieval: Sakai 2006, "Evaluating evaluation metrics based on
    the bootstrap".
    """
    if a.shape != b.shape:
        raise ValueError(f"scores of shape {a.shape} and {b.shape} cannot be paired")
    differences = b - a
    observed = differences.mean(axis=0)
    means = _resampled_means(differences, resamples, seed)
    low, high = _percentiles(means)
    # a hair of tolerance: equal means, summed in another order, are equal
    extreme = (np.abs(means - observed) >= np.abs(observed) - 1e-12).sum(axis=0)
    p = (1 + extreme) / (resamples + 1)
    return [PairedTest(*map(float, row)) for row in zip(observed, low, high, p, strict=True)]


def _resampled_means(scores: Floats, resamples: int, seed: int) -> Floats:
    """Return (resamples, metrics): the means over queries drawn with replacement."""
    if len(scores) == 0:
        raise ValueError("there is no query to resample")
    return np.concatenate(
        [scores[drawn].mean(axis=1) for drawn in _draws(len(scores), resamples, seed, scores.shape[1])]
    )


def _draws(queries: int, resamples: int, seed: int, metrics: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the draws in blocks (n, queries). The generator is read in order, so the block's size changes nothing."""
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK_CELLS // (queries * metrics))
    for start in range(0, resamples, block):
        yield generator.integers(queries, size=(min(block, resamples - start), queries))


def _percentiles(means: Floats) -> tuple[Floats, Floats]:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high
