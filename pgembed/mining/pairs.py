"""Candidate pairs: all chunks that look alike, found on the server. Reads `code_chunks`, writes `candidate_pairs`.

A *full* run ranks the tokens anew and joins everything, slice by slice; an *incremental* one probes for the new chunks
only. What was deleted took its pairs along. Both commit in slices: a run that was killed goes on where it stopped.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psycopg

from pgembed.db.sql import query
from pgembed.errors import MiningError
from pgembed.mining.workers import spread
from pgembed.progress import SILENT, Progress

# Above this share of new chunks the set-wise join over everything is faster than probing for each.
_FULL_SHARE = 0.2
# Ranks follow document frequencies as of the last full run. Any order is exact, so drift costs time alone: everything
# is ranked anew when there is twice as much.
_FULL_GROWTH = 2.0
_RANGE = 20_000  # chunks whose sets are made in one transaction
_SLICE = 50_000  # sets joined in one transaction; smaller ones read their partners again more often
_PROBES = 5_000  # new chunks compared in one transaction: one pass over all prefixes each


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
    conn: psycopg.Connection,
    *,
    min_jaccard: float = 0.5,
    jobs: int = 1,
    full: bool = False,
    progress: Progress = SILENT,
) -> PairsReport:
    """Bring `candidate_pairs` up to date: exactly the pairs with Jaccard ≥ `min_jaccard`, to the thousandth.

    `full` does everything again. A lower threshold than the last run's does so too; a higher one removes pairs.
    `jobs` connections share the work of a full run.

    Raises:
        MiningError: the threshold cannot be used, or another run is at work.
    """
    thousandths = round(min_jaccard * 1000)
    if not 100 <= thousandths <= 1000:
        raise MiningError(f"--min-jaccard must lie between 0.1 and 1, and is {min_jaccard}.")
    near_duplicate, min_tokens = _row(conn, "pair_settings")
    if thousandths / 1000 > near_duplicate:
        raise MiningError(
            f"--min-jaccard {min_jaccard} is above the setting near_duplicate ({near_duplicate}): copies that were not "
            "found could then stand in two splits.",
            remedy="Give a lower threshold, or raise the setting in pgembed.mining_settings.",
        )
    started = time.monotonic()
    if not _row(conn, "pairs_try_lock")[0]:
        raise MiningError("Another `pgembed pairs` is at work on this database.", remedy="Wait for it, then run again.")
    try:
        conn.execute(query("notice_lost_clients"))
        run = _Run(conn, thousandths, int(min_tokens), jobs, progress)
        chunks, found = run.bring_up_to_date(full=full)
        return PairsReport(
            thousandths / 1000, chunks, found, int(_row(conn, "count_pairs")[0]), time.monotonic() - started
        )
    finally:
        if not conn.broken:
            conn.execute(query("pairs_unlock"))


@dataclass(frozen=True)
class _Run:
    conn: psycopg.Connection
    thousandths: int
    min_tokens: int
    jobs: int
    progress: Progress

    def bring_up_to_date(self, *, full: bool) -> tuple[int, int]:
        """Return the chunks whose pairs were looked for, and the pairs found."""
        last = self.conn.execute(query("last_pair_run")).fetchone()
        same = last is not None and (round(last[3] * 1000), last[4]) == (self.thousandths, self.min_tokens)
        chunks = found = 0
        if last is not None and same and last[2] != "finished":
            self.progress.say("going on with the run that was interrupted")
            chunks, found = self._join_all(int(last[0]), last[2])
        elif full or self._needs_full(last):
            chunks, found = self._join_all(self._begin(), "preparing")
        elif last is not None and not same:
            with self.conn.transaction():
                self.conn.execute(query("raise_threshold"), {"min_jaccard": self.thousandths / 1000})
                self._record("raise", 0, 0, 0.0)
        more, added = self._join_new()
        if chunks or more:
            self.conn.execute(query("analyze_pairs"))
        return chunks + more, found + added

    def _needs_full(self, last: tuple[int, str, str, float, int] | None) -> bool:
        if last is None or last[2] != "finished":
            return True
        if self.thousandths < round(last[3] * 1000) or self.min_tokens != last[4]:
            return True
        new, sets, sets_then, waiting = _row(self.conn, "pairs_to_do")
        total = new + sets
        return new + waiting > _FULL_SHARE * total or (new > 0 and total >= _FULL_GROWTH * sets_then)

    def _begin(self) -> int:
        with self.conn.transaction():
            self.conn.execute(query("reset_pairs"))
            run_id = _row(
                self.conn,
                "begin_full_run",
                {"min_jaccard": self.thousandths / 1000, "min_tokens": self.min_tokens},
            )[0]
        return int(run_id)

    def _join_all(self, run_id: int, state: str) -> tuple[int, int]:
        started = time.monotonic()
        if state == "preparing":
            self._prepare(queued=False)
            with self.conn.transaction():
                self.conn.execute(query("plan_slices"), {"run_id": run_id, "size": _SLICE})
        slices = self.conn.execute(query("open_slices"), {"run_id": run_id}).fetchall()
        work = [(sets, self._slice(run_id, ordinal)) for ordinal, sets in slices]
        spread(self.conn, work, self.jobs, self.progress, "finding pairs", "chunks")
        parameters = {"run_id": run_id, "seconds": time.monotonic() - started}
        chunks, found = _row(self.conn, "finish_full_run", parameters)
        return int(chunks), int(found)

    def _prepare(self, *, queued: bool) -> int:
        """Make the sets of the chunks that have none; return how many."""
        self.conn.execute(query("rank_tokens"))
        ranges = self.conn.execute(query("chunk_ranges"), {"size": _RANGE}).fetchall()
        work = [(count, self._range(first, last, queued=queued)) for first, last, count in ranges]
        spread(self.conn, work, self.jobs, self.progress, "making token sets", "chunks")
        if ranges:
            self.conn.execute(query("analyze_sets"))
        return sum(int(count) for *_, count in ranges)

    def _range(self, first: int, last: int, *, queued: bool) -> Callable[[psycopg.Connection], None]:
        parameters = {"thousandths": self.thousandths, "first": first, "last": last, "queued": queued}

        def prepare(conn: psycopg.Connection) -> None:
            conn.execute(query("prepare_sets"), parameters)

        return prepare

    def _slice(self, run_id: int, ordinal: int) -> Callable[[psycopg.Connection], None]:
        key = {"run_id": run_id, "ordinal": ordinal}

        def join(conn: psycopg.Connection) -> None:
            # a slice that another process took before it was killed is waited for, and then done already
            bounds = conn.execute(query("lock_slice"), key).fetchone()
            if bounds is None:
                return
            names = ("low_n", "low_id", "high_n", "high_id")
            parameters = dict(zip(names, bounds, strict=True))
            threshold = {"thousandths": self.thousandths, "min_tokens": self.min_tokens}
            pairs = conn.execute(query("pair_slice"), {**parameters, **threshold}).rowcount
            conn.execute(query("close_slice"), {**key, "pairs": pairs})

        return join

    def _join_new(self) -> tuple[int, int]:
        started = time.monotonic()
        new, _, _, waiting = _row(self.conn, "pairs_to_do")
        if not new and not waiting:
            return 0, 0
        self._prepare(queued=True)
        chunks = found = 0
        threshold = {"thousandths": self.thousandths, "min_tokens": self.min_tokens}
        with self.progress.task("finding pairs", int(new + waiting), "chunks") as task:
            while ids := [row[0] for row in self.conn.execute(query("next_in_queue"), {"size": _PROBES})]:
                with self.conn.transaction():
                    parameters = {"chunk_ids": ids, **threshold}
                    found += self.conn.execute(query("pair_chunks"), parameters).rowcount
                    self.conn.execute(query("leave_queue"), {"chunk_ids": ids})
                chunks += len(ids)
                task.advance(len(ids))
        self._record("incremental", chunks, found, time.monotonic() - started)
        return chunks, found

    def _record(self, mode: str, chunks: int, pairs: int, seconds: float) -> None:
        self.conn.execute(
            query("record_pair_run"),
            {
                "mode": mode,
                "min_jaccard": self.thousandths / 1000,
                "min_tokens": self.min_tokens,
                "chunks": chunks,
                "pairs": pairs,
                "seconds": seconds,
            },
        )


def _row(conn: psycopg.Connection, name: str, parameters: Mapping[str, object] | None = None) -> tuple[float, ...]:
    row = conn.execute(query(name), parameters or {}).fetchone()
    if row is None or None in row:
        raise MiningError(f"The query {name} gave nothing: a row of pgembed.mining_settings is missing.")
    return row
