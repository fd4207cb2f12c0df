"""Candidate pairs: all chunks that look alike, found on the server. Reads `code_chunks`, writes `candidate_pairs`.

New chunks are compared with all others and nothing else is done again; what was deleted took its pairs along. A run
that is interrupted has committed its slices, and the next one goes on.
"""

import time
from dataclasses import dataclass

import psycopg

from pgembed.db.sql import query
from pgembed.errors import MiningError
from pgembed.progress import SILENT, Progress

# Above this share of new chunks the set-wise join over everything is faster than probing for each.
_FULL_JOIN_SHARE = 0.2
_SLICE = 500


@dataclass(frozen=True)
class PairsReport:
    """What a run did."""

    min_jaccard: float
    chunks: int
    """Chunks whose pairs were looked for; 0 when nothing was new."""
    pairs_found: int
    pairs: int
    """Pairs there are now."""
    seconds: float


def find_pairs(
    conn: psycopg.Connection, *, min_jaccard: float = 0.5, full: bool = False, progress: Progress = SILENT
) -> PairsReport:
    """Bring `candidate_pairs` up to date: exactly the pairs with Jaccard ≥ `min_jaccard`, to the thousandth.

    `full` does everything again. A lower threshold than the last run's does so too; a higher one removes pairs.

    Raises:
        MiningError: the threshold cannot be used, or another run is at work.
    """
    thousandths = round(min_jaccard * 1000)
    if not 100 <= thousandths <= 1000:
        raise MiningError(f"--min-jaccard must lie between 0.1 and 1, and is {min_jaccard}.")
    near_duplicate = _one(conn, "near_duplicate_setting")[0]
    if min_jaccard > near_duplicate:
        raise MiningError(
            f"--min-jaccard {min_jaccard} is above the setting near_duplicate ({near_duplicate}): copies that were not "
            "found could then stand in two splits.",
            remedy="Give a lower threshold, or raise the setting in pgembed.mining_settings.",
        )
    started = time.monotonic()
    if not _one(conn, "pairs_try_lock")[0]:
        raise MiningError("Another `pgembed pairs` is at work on this database.", remedy="Wait for it, then run again.")
    try:
        _settle_threshold(conn, thousandths, full=full)
        with conn.transaction():
            conn.execute(query("prepare_sets"), {"thousandths": thousandths})
        new, total = _one(conn, "count_unpaired")
        found = 0
        if new > total * _FULL_JOIN_SHARE:
            progress.say(f"comparing {total:,} token sets, all with all, in one join")
            found = _pair_all(conn, thousandths)
        elif new:
            found = _pair_new(conn, thousandths, new, progress)
        seconds = time.monotonic() - started
        if new:
            conn.execute(query("analyze_pairs"))
            conn.execute(
                query("record_pair_run"),
                {"min_jaccard": thousandths / 1000, "chunks": new, "pairs": found, "seconds": seconds},
            )
        return PairsReport(thousandths / 1000, new, found, _one(conn, "count_pairs")[0], seconds)
    finally:
        if not conn.broken:
            conn.execute(query("pairs_unlock"))


def _settle_threshold(conn: psycopg.Connection, thousandths: int, *, full: bool) -> None:
    row = conn.execute(query("last_pair_threshold")).fetchone()
    last = None if row is None else round(row[0] * 1000)
    if full or (last is not None and thousandths < last):
        conn.execute(query("reset_pairs"))
    elif last is not None and thousandths > last:
        with conn.transaction():
            conn.execute(query("raise_threshold"), {"min_jaccard": thousandths / 1000})
            # the prefixes stay those of the lower threshold, which serve; the run that follows may find nothing new
            conn.execute(
                query("record_pair_run"), {"min_jaccard": thousandths / 1000, "chunks": 0, "pairs": 0, "seconds": 0}
            )


def _pair_all(conn: psycopg.Connection, thousandths: int) -> int:
    with conn.transaction():
        found = conn.execute(query("pair_all"), {"thousandths": thousandths}).rowcount
        conn.execute(query("mark_all_paired"))
    return found


def _pair_new(conn: psycopg.Connection, thousandths: int, new: int, progress: Progress) -> int:
    found = 0
    with progress.task("finding pairs", new, "chunks") as task:
        while ids := [row[0] for row in conn.execute(query("next_unpaired"), {"slice": _SLICE})]:
            with conn.transaction():
                parameters = {"chunk_ids": ids, "thousandths": thousandths}
                found += conn.execute(query("pair_slice"), parameters).rowcount
                conn.execute(query("mark_paired"), {"chunk_ids": ids})
            task.advance(len(ids))
    return found


def _one(conn: psycopg.Connection, name: str) -> tuple[int, ...]:
    row = conn.execute(query(name)).fetchone()
    if row is None:
        raise MiningError(f"The query {name} gave no row: a setting was deleted.", remedy="Run `pgembed doctor`.")
    return row
