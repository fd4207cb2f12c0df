"""Candidate pairs: all chunks that look alike, found on the server. Reads `code_chunks`, writes `candidate_pairs`.

A *full* run ranks the tokens anew and joins everything, slice by slice; an *incremental* one probes for the new chunks
only. What was deleted took its pairs along. Both commit in slices: a run that was killed goes on where it stopped.

The *approximate* path compares what shares a MinHash bucket (`bands.py`). Its pairs are as true as the exact path's,
but some may be missing: the run's row in `pair_runs` says with which probability, and how many a random sample missed.
It is for corpora beyond the exact join, which is faster below: on two connections that took 11 s against 42 at 100,000
functions and 0.5, and 2.8 against 21 at 0.7. Rows of both grow with the square of the chunks (95 million against 49
there, and 9.5 against 3.6; but a row of the join on buckets takes three times as long), those of the approximate path
only until its buckets are full. Where the two meet was not measured.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from pgembed.db.sql import query
from pgembed.errors import MiningError
from pgembed.mining.approximate import MOST_IN_BUCKET, find_crowded, make_signatures, measure_recall, signature_bands
from pgembed.mining.bands import Bands, choose_bands
from pgembed.mining.estimate import WORTH_APPROXIMATING_S, WORTH_TELLING_S, estimate_pairs
from pgembed.mining.workers import spread
from pgembed.progress import SILENT, Progress

# Above this share of new chunks the set-wise join over everything is faster than probing for each.
_FULL_SHARE = 0.2
# The order of tokens follows their frequencies as of the last full run. Any order is exact, so drift costs time alone:
# tokens are ranked anew when there is twice as much.
_FULL_GROWTH = 2.0
# At most so many a transaction; with several jobs as many fewer as share the work evenly.
_RANGE = 20_000  # chunks whose sets are made
_SHARED_FROM = 2_000  # fewer are made before a second connection is open
_SLICE = 50_000  # sets joined, on average; smaller slices read their partners again more often
_EVERY_ID = 2**63 - 1
_ANALYZED_FROM = 5_000  # new sets that change what the planner knows enough to tell it
_PROBES = 5_000  # new chunks compared at once: one pass over all prefixes each
_FEW = 200  # new chunks that take as long as one, and are not shared
_ANALYZED_SHARE = 0.1  # new pairs that change what the planner knows enough to tell it
_BAND_SLICE = 100_000  # the same for bands, which are more rows to read again than prefixes
_UNMEASURED = {"measured_recall": None, "recall_chunks": None, "recall_pairs": None}
_LET_OTHERS_PASS = 1.0  # seconds, between two tries to empty the tables
_ESTIMATED_FROM = 200_000  # chunks at 1, half as many at 0.5: there a run took 20 s, and its estimate takes 2 or 3


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
    approximate: bool = False
    """Whether pairs may be missing: this run or one that it builds on was approximate. The rest is None if not."""
    expected_recall: float | None = None
    """The least probability to be found: that of a pair at `min_jaccard`."""
    copy_miss: float | None = None
    """The probability that a pair at the setting near_duplicate is missing, on which splits rest."""
    measured_recall: float | None = None
    """Share of the pairs of a random sample of chunks that was found; None where the sample has none."""
    recall_chunks: int | None = None
    recall_pairs: int | None = None
    """How many chunks the sample has, and how many pairs these truly have."""
    crowded_buckets: int = 0
    largest_bucket: int = 0
    comparisons_left_out: int = 0
    """Buckets that held more than 1,000 chunks, the largest, and comparisons not made there."""


def find_pairs(
    conn: psycopg.Connection,
    *,
    min_jaccard: float = 0.5,
    jobs: int = 1,
    full: bool = False,
    approximate: bool = False,
    progress: Progress = SILENT,
) -> PairsReport:
    """Bring `candidate_pairs` up to date: exactly the pairs with Jaccard ≥ `min_jaccard`, to the thousandth.

    `full` does everything again. A lower threshold than the last run's does so too; a higher one removes pairs.
    `jobs` connections share the work of a full run.

    `approximate` compares by bands: a subset of the pairs, each with its exact Jaccard. Where everything was compared
    exactly before and at most a fifth is new, those pairs stay, and new chunks alone are compared by bands. After an
    approximate run an exact one does everything again.

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
        run = _Run(conn, thousandths, int(min_tokens), near_duplicate, jobs, approximate, progress)
        chunks, found = run.bring_up_to_date(full=full)
        pairs = int(_row(conn, "count_pairs")[0])
        return PairsReport(thousandths / 1000, chunks, found, pairs, time.monotonic() - started, **_quality(conn))
    finally:
        if not conn.broken:
            conn.execute(query("pairs_unlock"))


_LastRun = tuple[int, str, int, int, bool]
"""Its id, state, threshold in thousandths, least tokens, and whether it was approximate."""


@dataclass(frozen=True)
class _Run:
    conn: psycopg.Connection
    thousandths: int
    min_tokens: int
    near_duplicate: float
    jobs: int
    approximate: bool
    progress: Progress

    def bring_up_to_date(self, *, full: bool) -> tuple[int, int]:
        """Return the chunks whose pairs were looked for, and the pairs found."""
        last = self.conn.execute(query("last_pair_run")).fetchone()
        chunks = found = 0
        if last is not None and self._goes_on_with(last):
            self.progress.say("going on with the run that was interrupted")
            self._forget_lost()
            chunks, found = self._join_all(int(last[0]), last[1])
        elif full or last is None or not self._builds_on(last):
            return self._begin_and_join_all()
        new, first, last_id, sets, sets_then, waiting, lost = (int(number) for number in _row(self.conn, "pairs_to_do"))
        if lost:
            self._forget_lost()
        if not chunks and (
            new + waiting > _FULL_SHARE * (new + sets) or (new and new + sets >= _FULL_GROWTH * sets_then)
        ):
            return self._begin_and_join_all()
        if last[2:4] != (self.thousandths, self.min_tokens):
            with self.conn.transaction():
                below = self.conn.execute(query("raise_threshold"), {"min_jaccard": self.thousandths / 1000}).rowcount
                run_id = self._record("raise", 0, 0, 0.0)
                if last[4]:
                    self._record_recall(run_id, self._bands())
            self.progress.say(f"{below:,} pairs below {self.thousandths / 1000:g} are removed")
        more, added = self._join_new(new, waiting, (first, last_id))
        return chunks + more, found + added

    def _forget_lost(self) -> None:
        """Remove sets and pairs of chunks that are gone: of a deletion that could not see them."""
        with self.conn.transaction():
            self.conn.execute(query("forget_lost_pairs"))
            self.conn.execute(query("forget_lost_sets"))

    def _goes_on_with(self, last: _LastRun) -> bool:
        same = last[2:4] == (self.thousandths, self.min_tokens) and last[4] == self.approximate
        return same and last[1] != "finished"

    def _builds_on(self, last: _LastRun) -> bool:
        """Say whether all pairs that the last run looked for are there, and they are all that this one looks for."""
        _, state, thousandths, min_tokens, approximate = last
        return (
            state == "finished"
            and thousandths <= self.thousandths
            and min_tokens == self.min_tokens
            and (self.approximate or not approximate)
        )

    def _begin_and_join_all(self) -> tuple[int, int]:
        self._announce()
        return self._join_all(self._begin(), "preparing")

    def _announce(self) -> None:
        """Say what the run will cost, where that is much."""
        if int(_row(self.conn, "count_chunks")[0]) < _ESTIMATED_FROM * self.thousandths / 1000:
            return
        estimate = estimate_pairs(self.conn, min_jaccard=self.thousandths / 1000)
        if estimate.seconds < WORTH_TELLING_S:
            return
        self.progress.say(str(estimate))
        if estimate.seconds >= WORTH_APPROXIMATING_S and not self.approximate:
            self.progress.say("For less time and some missing pairs: pgembed pairs --approximate")

    def _begin(self) -> int:
        """Empty the tables and record the run. Waits for who uses them, but never in the way of others for long."""
        told = False
        while True:
            try:
                with self.conn.transaction():
                    self.conn.execute(query("wait_briefly_for_locks"))
                    self.conn.execute(query("reset_pairs"))
                    return self._record_begin()
            except psycopg.errors.LockNotAvailable:
                if not told and (user := self.conn.execute(query("who_uses_pairs")).fetchone()):
                    pid, application, address, seconds = user
                    self.progress.say(
                        f"waiting for a transaction that uses the pairs: process {pid} ({application or 'no name'}, "
                        f"{address}), open for {seconds:.0f} s"
                    )
                    told = True
                time.sleep(_LET_OTHERS_PASS)

    def _record_begin(self) -> int:
        parameters: dict[str, float] = {"min_jaccard": self.thousandths / 1000, "min_tokens": self.min_tokens}
        if not self.approximate:
            return int(_row(self.conn, "begin_full_run", parameters)[0])
        parameters |= self._promise(choose_bands(self.thousandths / 1000, self.near_duplicate))
        return int(_row(self.conn, "begin_approximate_run", parameters)[0])

    def _join_all(self, run_id: int, state: str) -> tuple[int, int]:
        started = time.monotonic()
        if state == "preparing":
            self._prepare(int(_row(self.conn, "count_chunks")[0]), (0, _EVERY_ID), queued=False)
            if self.approximate:
                make_signatures(self.conn, self._bands(), self.jobs, self.progress)
            size = _BAND_SLICE if self.approximate else _SLICE
            with self.conn.transaction():
                if self.approximate:
                    crowded = find_crowded(self.conn, queued=False)
                    self.conn.execute(query("record_crowded_buckets"), {"run_id": run_id, **crowded})
                sets = int(_row(self.conn, "count_sets")[0])
                self.conn.execute(query("plan_slices"), {"run_id": run_id, "size": self._share(sets, size)})
        slices = self.conn.execute(query("open_slices"), {"run_id": run_id}).fetchall()
        work = [(sets, self._slice(run_id, ordinal)) for ordinal, sets in slices]
        spread(self.conn, work, self.jobs, self.progress, "finding pairs", "chunks")
        self.conn.execute(query("analyze_pairs"))  # before the run is finished: a killed one does it when it goes on
        if self.approximate:
            self._record_recall(run_id, self._bands())
        parameters = {"run_id": run_id, "seconds": time.monotonic() - started}
        chunks, found = _row(self.conn, "finish_full_run", parameters)
        return int(chunks), int(found)

    def _share(self, total: int, most: int) -> int:
        """Return the size of pieces of at most `most`, of which each of several jobs gets as many."""
        rounds = max(math.ceil(total / (self.jobs * most)), 1)
        return max(math.ceil(total / (self.jobs * rounds)), 1)

    def _prepare(self, new: int, ids: tuple[int, int], *, queued: bool) -> None:
        """Make the sets of the `new` chunks that have none, which lie between two ids."""
        if not queued:
            self.conn.execute(query("rank_tokens"))
        ranges = [(*ids, new)]
        if new > _SHARED_FROM:
            ranges = self.conn.execute(query("chunk_ranges"), {"size": self._share(new, _RANGE)}).fetchall()
        work = [(count, self._range(first, last, queued=queued)) for first, last, count in ranges]
        spread(self.conn, work, self.jobs, self.progress, "making token sets", "chunks")
        if not queued or new >= _ANALYZED_FROM:
            self.conn.execute(query("analyze_sets"))

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
            parameters = dict(zip(names, bounds, strict=True)) | self._threshold()
            if self.approximate:
                pairs = _store(conn, "band_pairs_of_slice", parameters)
            else:  # a pair is in one slice: without a look for conflicts, in half the time at 0.5
                pairs = _store(conn, "pairs_of_slice", parameters, conflicts=False)
            conn.execute(query("close_slice"), {**key, "pairs": pairs})

        return join

    def _join_new(self, new: int, waiting: int, ids: tuple[int, int]) -> tuple[int, int]:
        """Compare the `new` chunks without a set, which lie between two ids, and those that wait in the queue."""
        started = time.monotonic()
        if not new and not waiting:
            return 0, 0
        if new:
            self._prepare(new, ids, queued=True)
        run_id = None
        if self.approximate:
            bands = self._bands()
            make_signatures(self.conn, bands, self.jobs, self.progress)
            crowded = find_crowded(self.conn, queued=True)
            # recorded before the first is compared: what is left of a run that is killed must not pass for exact
            with self.conn.transaction():
                run_id = self._record("incremental", 0, 0, 0.0)
                self.conn.execute(query("record_crowded_buckets"), {"run_id": run_id, **crowded})
                self.conn.execute(
                    query("record_approximation"), {"run_id": run_id, **self._promise(bands), **_UNMEASURED}
                )
        queue = [row[0] for row in self.conn.execute(query("queued_chunks"))]
        counts: list[int] = []  # of pairs, a piece each
        size = min(max(self._share(len(queue), _PROBES), _FEW), _PROBES)
        parts = [queue[i : i + size] for i in range(0, len(queue), size)]
        work = [(len(part), self._probe(part, counts)) for part in parts]
        spread(self.conn, work, self.jobs, self.progress, "finding pairs", "chunks")
        chunks, found = len(queue), sum(counts)
        if found >= _ANALYZED_SHARE * int(_row(self.conn, "count_pairs")[0]):
            self.conn.execute(query("analyze_pairs"))
        if run_id is None:
            self._record("incremental", chunks, found, time.monotonic() - started)
        else:
            self._record_recall(run_id, self._bands())
            parameters = {"run_id": run_id, "chunks": chunks, "pairs": found, "seconds": time.monotonic() - started}
            self.conn.execute(query("finish_incremental_run"), parameters)
        return chunks, found

    def _probe(self, ids: list[int], counts: list[int]) -> Callable[[psycopg.Connection], None]:
        parameters = {"chunk_ids": ids, **self._threshold()}
        name = "band_pairs_of_chunks" if self.approximate else "pairs_of_chunks"

        def probe(conn: psycopg.Connection) -> None:
            found = _store(conn, name, parameters)
            conn.execute(query("leave_queue"), parameters)
            counts.append(found)

        return probe

    def _threshold(self) -> dict[str, int]:
        return {"thousandths": self.thousandths, "min_tokens": self.min_tokens, "most": MOST_IN_BUCKET}

    def _bands(self) -> Bands:
        return signature_bands(self.conn, self.thousandths / 1000, self.near_duplicate)

    def _promise(self, bands: Bands) -> dict[str, float]:
        """Return what the bands find at least, at the threshold and of copies."""
        return {
            "rows": bands.rows,
            "bands": bands.bands,
            "expected_recall": bands.recall(self.thousandths / 1000),
            "copy_recall": bands.recall(self.near_duplicate),
        }

    def _record_recall(self, run_id: int, bands: Bands) -> None:
        self.conn.execute(query("analyze_pairs"))
        measured = measure_recall(self.conn, self.thousandths, self.min_tokens, seed=run_id, progress=self.progress)
        parameters = {
            "run_id": run_id,
            "measured_recall": measured.recall,
            "recall_chunks": measured.chunks,
            "recall_pairs": measured.pairs,
        }
        self.conn.execute(query("record_approximation"), parameters | self._promise(bands))

    def _record(self, mode: str, chunks: int, pairs: int, seconds: float) -> int:
        parameters = {
            "mode": mode,
            "min_jaccard": self.thousandths / 1000,
            "min_tokens": self.min_tokens,
            "chunks": chunks,
            "pairs": pairs,
            "seconds": seconds,
        }
        return int(_row(self.conn, "record_pair_run", parameters)[0])


def _store(conn: psycopg.Connection, name: str, parameters: Mapping[str, object], *, conflicts: bool = True) -> int:
    """Store the pairs that the query `name` finds, and return how many were not there before."""
    conflict = sql.SQL("ON CONFLICT DO NOTHING" if conflicts else "")
    statement = sql.SQL(query("store_pairs")).format(found=sql.SQL(query(name)), conflict=conflict)
    return conn.execute(statement, parameters).rowcount


def _quality(conn: psycopg.Connection) -> dict[str, Any]:
    """Return what the last run says about the pairs that may be missing."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query("pairs_quality")).fetchone() or {}


def _row(conn: psycopg.Connection, name: str, parameters: Mapping[str, object] | None = None) -> tuple[float, ...]:
    row = conn.execute(query(name), parameters or {}).fetchone()
    if row is None or None in row:
        raise MiningError(f"The query {name} gave nothing: a row of pgembed.mining_settings is missing.")
    return row
