"""What a full run will cost, before it is started. Reads `code_chunks` and `tokens`; writes nothing that stays.

The server does the work of a run on a random sample of the chunks and times it; pairs of chunks are in a sample with
equal probability, so their rows grow with the square of the chunks, and the rest in proportion.
"""

import math
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from pgembed.db.sql import query
from pgembed.errors import MiningError
from pgembed.mining.bands import Bands, choose_bands

WORTH_TELLING_S = 30.0
"""A run that will take longer is announced."""
WORTH_APPROXIMATING_S = 2 * 3600.0
"""One that will take longer is announced with a hint at --approximate."""
_SAMPLE = 8_000  # two or three seconds on the server; a tenth of the run it foretells, or less, where that is told
_EXACT_SLICE = 50_000  # as pairs._SLICE
_READ_AGAIN = 0.25  # of all prefixes, by each slice: those of what may be its partners
# What a row of a prefix takes in the join, and a pair of rows that share a bucket, in pairs of rows that share a token:
# 0.7, 0.3 and 0.11 µs, measured on 20,000 and 100,000 functions. A sample's own join is too short to tell them apart.
_PREFIX_ROW, _BUCKET_ROW = 6.5, 3.0


@dataclass(frozen=True)
class Sampled:
    """A row of `jaccard_estimate`: what the sample of a corpus of `chunks` gave, in rows and seconds."""

    chunks: int
    sampled: int
    prefix_rows: int
    joined: int
    candidates: int
    pairs: int
    signed: int
    bucket_joined: int
    prepare_s: float
    prefix_s: float
    join_s: float
    verify_s: float
    sign_s: float
    bucket_s: float


@dataclass(frozen=True)
class PairsEstimate:
    """What a full run will find and take, on one connection."""

    min_jaccard: float
    chunks: int
    sampled: int
    joined: int
    """Rows of the join on tokens: nearly all of a long run's time."""
    candidates: int
    """Pairs that are left to be counted exactly."""
    pairs: int
    seconds: float
    approximate_joined: int
    """Rows of the join on buckets."""
    approximate_seconds: float
    expected_recall: float
    """Of the approximate path, at the threshold."""
    copy_miss: float
    """Probability that it misses a pair at the setting near_duplicate."""

    def __str__(self) -> str:
        return (
            f"About {_rounded(self.candidates)} candidate pairs out of {_rounded(self.joined)} rows, "
            f"about {_duration(self.seconds)}; the approximate path about {_duration(self.approximate_seconds)}, "
            f"with at least {self.expected_recall:.1%} of the pairs at {self.min_jaccard:g}."
        )


def estimate_pairs(conn: psycopg.Connection, *, min_jaccard: float = 0.5, sample: int = _SAMPLE) -> PairsEstimate:
    """Foretell a full run at this threshold from `sample` chunks, with this server's speed of now.

    Measured on real functions: see `extrapolate`.

    Raises:
        MiningError: the threshold cannot be used.
    """
    thousandths = round(min_jaccard * 1000)
    if not 100 <= thousandths <= 1000:
        raise MiningError(f"--min-jaccard must lie between 0.1 and 1, and is {min_jaccard}.")
    settings = conn.execute(query("pair_settings")).fetchone()
    if settings is None or None in settings:
        raise MiningError("A row of pgembed.mining_settings is missing.")
    near_duplicate, min_tokens = settings
    bands = choose_bands(thousandths / 1000, max(near_duplicate, thousandths / 1000))
    with conn.transaction(), conn.cursor(row_factory=class_row(Sampled)) as cursor:
        parameters = {
            "thousandths": thousandths,
            "min_tokens": int(min_tokens),
            "sample": sample,
            "rows": bands.rows,
            "bands": bands.bands,
        }
        sampled = cursor.execute(query("estimate_pairs"), parameters).fetchone()
    assert sampled is not None  # noqa: S101 - a function's result is a row
    return extrapolate(sampled, thousandths / 1000, bands, near_duplicate)


def extrapolate(sampled: Sampled, min_jaccard: float, bands: Bands, near_duplicate: float) -> PairsEstimate:
    """Return the figures of all chunks from those of the sample.

    For 20,000 and 100,000 real functions at 0.5 and 0.7, single runs, the seconds of the exact path were 0.8 to 0.9
    times the estimate, those of the approximate one 1.1 to 1.3 times, and the pairs 1.05 to 1.22 times. Load that
    comes upon the machine after the estimate is not in it; and nothing was compared beyond 100,000.
    """
    chunks, n = sampled.chunks, sampled.sampled
    linear, square = _growth(chunks, n)
    joined_row_s = sampled.join_s / max(sampled.joined + _PREFIX_ROW * sampled.prefix_rows, 1)
    prefix_s = sampled.prefix_s + joined_row_s * _PREFIX_ROW * sampled.prefix_rows
    slices = math.ceil(chunks / _EXACT_SLICE)
    seconds = (
        linear * sampled.prepare_s
        + linear * prefix_s * (1 + _READ_AGAIN * (slices - 1))
        + square * (joined_row_s * sampled.joined + sampled.verify_s)
    )
    signed_linear, signed_square = _growth(chunks, sampled.signed)
    approximate_seconds = (
        linear * (sampled.prepare_s + sampled.prefix_s)  # the measurement of recall reads all prefixes
        + signed_linear * (sampled.sign_s + sampled.bucket_s)
        + signed_square * sampled.bucket_joined * joined_row_s * _BUCKET_ROW
        + square * sampled.verify_s
    )
    return PairsEstimate(
        min_jaccard=min_jaccard,
        chunks=chunks,
        sampled=n,
        joined=round(square * sampled.joined),
        candidates=round(square * sampled.candidates),
        pairs=round(square * sampled.pairs),
        seconds=seconds,
        approximate_joined=round(signed_square * sampled.bucket_joined),
        approximate_seconds=approximate_seconds,
        expected_recall=bands.recall(min_jaccard),
        copy_miss=bands.miss(max(near_duplicate, min_jaccard)),
    )


def _growth(chunks: int, sampled: int) -> tuple[float, float]:
    """Return how many times the chunks, and the pairs of chunks, of the sample there are."""
    if sampled < 2:
        return float(chunks), float(chunks) ** 2
    return chunks / sampled, chunks * (chunks - 1) / (sampled * (sampled - 1))


def _rounded(number: int) -> str:
    for unit, name in ((1e9, "billion"), (1e6, "million")):
        if number >= unit:
            return f"{number / unit:.2g} {name}" if number < 100 * unit else f"{number / unit:,.0f} {name}"
    digits = max(len(str(number)) - 2, 0)
    return f"{round(number, -digits):,}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"
