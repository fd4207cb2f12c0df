"""The approximate path of `find_pairs`: signatures, crowded buckets, and the recall that a run truly had.

Writes `jaccard_signatures` and `crowded_buckets`; what it says about a run stands in the run's row of `pair_runs`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from pgembed.db.sql import query
from pgembed.mining.bands import Bands, choose_bands
from pgembed.mining.workers import attempt, spread
from pgembed.progress import Progress

MOST_IN_BUCKET = 1_000
"""Sets of a bucket that one of them is compared with at most: so the cost of a bucket grows with its size and not with
the square. Of 100,000 real functions, 15 buckets held more at 0.5, the largest 3,529, and none at 0.7."""
_RANGE = 20_000  # sets signed in one transaction
_SAMPLE = 200  # chunks whose pairs are looked for exactly; of 100,000 real functions they had 2,102 at 0.5


@dataclass(frozen=True)
class MeasuredRecall:
    """How many of the pairs of a random sample of chunks were found."""

    chunks: int
    pairs: int
    """Pairs that these chunks truly have."""
    found: int

    @property
    def recall(self) -> float | None:
        """Return the share; None where the sample has no pairs, which says nothing."""
        return self.found / self.pairs if self.pairs else None


def signature_bands(conn: psycopg.Connection, min_jaccard: float, near_duplicate: float) -> Bands:
    """Return the bands that the signatures were made with; where there are none yet, those that fit the threshold."""
    row = conn.execute(query("signature_bands")).fetchone()
    return choose_bands(min_jaccard, near_duplicate) if row is None else Bands(row[0], row[1])


def make_signatures(conn: psycopg.Connection, bands: Bands, jobs: int, progress: Progress) -> None:
    """Give every set that has none its signature."""
    ranges = conn.execute(query("signature_ranges"), {"size": _RANGE}).fetchall()
    work = [(count, _sign(bands, first, last)) for first, last, count in ranges]
    spread(conn, work, jobs, progress, "making signatures", "chunks")
    if ranges:
        conn.execute(query("analyze_signatures"))


def find_crowded(conn: psycopg.Connection, *, queued: bool) -> dict[str, int]:
    """Find the buckets that are too full to compare all; return their number, the largest, and what is left out."""
    found: dict[str, int] = {}

    def find(own: psycopg.Connection) -> None:
        row = own.execute(query("find_crowded_buckets"), {"most": MOST_IN_BUCKET, "queued": queued}).fetchone()
        assert row is not None  # noqa: S101 - a function's result is a row
        found.update(zip(("crowded", "largest", "left_out"), row, strict=True))

    attempt(conn, find)
    return found


def measure_recall(
    conn: psycopg.Connection, thousandths: int, min_tokens: int, *, seed: int, progress: Progress
) -> MeasuredRecall:
    """Look for all pairs of a random sample of chunks exactly, and count how many of them were found."""
    parameters = {"seed": seed, "min_tokens": min_tokens, "size": _SAMPLE}
    ids = [row[0] for row in conn.execute(query("recall_sample"), parameters)]
    with progress.task("measuring recall", len(ids), "chunks") as task:
        wanted = {"chunk_ids": ids, "thousandths": thousandths, "min_tokens": min_tokens}
        row = conn.execute(query("probe_recall"), wanted).fetchone()
        assert row is not None  # noqa: S101 - an aggregate is a row
        task.advance(len(ids))
    return MeasuredRecall(len(ids), *row)


def _sign(bands: Bands, first: int, last: int) -> Callable[[psycopg.Connection], None]:
    parameters = {"rows": bands.rows, "bands": bands.bands, "first": first, "last": last}

    def sign(conn: psycopg.Connection) -> None:
        conn.execute(query("make_signatures"), parameters)

    return sign
