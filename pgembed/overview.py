"""What is in the database, what waits for which command, and who is at work: what `pgembed status` and the API show.

One transaction reads it all, so the figures are of one moment. Reads every table of the schema but no text of it, and
writes nothing; a role that may only read can do the same. At 91,505 chunks and 1.2 million pairs it took 0.3 s.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pgembed.db.sql import query
from pgembed.errors import DatabaseError
from pgembed.vectors import table
from pgembed.vectors.generations import precision_of
from pgembed.vectors.lock import RANGE

Connection = psycopg.Connection[Any]
Row = dict[str, Any]

# Rows of a table up to this size are counted one by one (some 4 million vectors, which stand beside their table, or 5
# million pairs: 0.2 s); beyond it the statistics answer, which VACUUM and ANALYZE keep near the truth.
_COUNTED_BYTES = 256 * 2**20
_LOCK_TIMEOUT = "5s"  # for a table that somebody is dropping or rewriting
UNFINISHED = ("filling", "indexing")
"""States of a generation that is not whole yet."""


@dataclass(frozen=True)
class Overview:
    """What is in the database and what is happening to it. A row is a dictionary; a key is always there, maybe null."""

    counts: Row
    """sources, files, chunks, docstrings, locations, tokens, pairs, rejected; disk in words."""
    estimated: list[str]
    """Those of docstrings and pairs that the statistics gave, since counting them would take long."""
    sources: list[Row]
    """name, root, revision, ingested_at, files, chunks."""
    triplets: Row
    """total, counts (kind, split, triplets), made_at, stale (what changed since: chunks, pairs, settings, …), and marks
    (how many chunks and triplets a person has marked as bad; the counts do not leave them out)."""
    pairs: Row
    """unprepared (chunks that have no token set yet), queued (that have one and were not compared yet), and run, the
    newest one: id, mode, state, approximate, min_jaccard, started_at, finished_at, slices, slices_done, chunks,
    chunks_done, at_work (whether a session holds the lock of pairs)."""
    lag: list[Row]
    """What waits, and the command that sees to it: waiting_for (pairs, triplets, words, vectors, activation), items,
    generation_id, command, at_work. Empty: nothing does."""
    generations: list[Row]
    """id, encoder, precision (float32, float16, int8), state, chunks, vectors, vectors_estimated (by the statistics),
    rejected (chunks that the encoder gives no vector for), missing, workers (sessions that fill or index it),
    index_method, lists, probes, index_recall (recall@10 when it was calibrated), indexed_rows, calibrated_rows,
    rows_since_index and rows_since_calibration (vectors now minus then), measured (the newest `pgembed eval` of its
    index: recall, p50_ms, rows, queries, dataset), vectors_bytes, index_bytes, row_count (at the end of the last
    reindex), error, onnx_path, created_at, activated_at."""
    leases: list[Row]
    """Locks of sessions: what (range, encoder, choosing, pairs, triplets, training, source, chunks), generation_id,
    encoder, run_id, source, first_chunk and last_chunk (ids of a range), alone, waiting, pid, application_name, role,
    host, connected_at. The last two are null where the server does not show them to this role."""
    training_runs: list[Row]
    """The newest five: id, state, view, base, encoder, steps (planned), last_step, last_loss (null: not finite), better
    and worse (than its base, beyond chance; null: not measured), at_work, steps_per_second and seconds_left (while at
    work), started_at, finished_at, error."""
    rejected: list[Row]
    """stage, reason, items, example."""
    errors: list[Row]
    """The newest first: what (generation, training run, rejected), id, stage, place, error, at."""
    disk: Row
    """total_bytes, and of it chunks_, words_, pairs_, triplets_, vectors_, indexes_ (of the vectors) and rest_bytes."""
    sessions: list[Row]
    """pgembed's commands that are connected now: pid, application_name, state, in_transaction_for."""
    at: datetime
    """By the server's clock."""


def collect(conn: Connection) -> Overview:
    """Return all of it; `conn` is autocommitting.

    Raises:
        DatabaseError: a table is locked, and stays so.
    """
    try:
        with conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            cursor.execute(query("status_settings"), {"lock_timeout": _LOCK_TIMEOUT})
            return _collect(conn, cursor)
    except psycopg.errors.LockNotAvailable as error:
        raise DatabaseError(
            f"A table of pgembed is locked by another session: {str(error).splitlines()[0]}",
            remedy="It is being rewritten or dropped; ask again soon.",
        ) from error


def _collect(conn: Connection, cursor: psycopg.Cursor[Row]) -> Overview:
    def rows(name: str, **parameters: Any) -> list[Row]:
        return cursor.execute(query(name), parameters).fetchall()

    def row(name: str, **parameters: Any) -> Row:
        return rows(name, **parameters)[0]

    large = row("status_large", bytes=_COUNTED_BYTES)["large"]
    counts = row("status_counts", large=large)
    leases = rows("status_leases", range=RANGE)
    generations = [
        _generation(conn, found, counts["chunks"], leases) for found in rows("status_generations", bytes=_COUNTED_BYTES)
    ]
    of_splits = rows("status_triplets")
    triplets = {"total": sum(one["triplets"] for one in of_splits), "counts": of_splits, **row("status_triplet_state")}
    run = next(iter(rows("status_pair_run")), None)
    paired = any(lease["what"] == "pairs" for lease in leases)
    pairs = {**row("status_pairs"), "run": None if run is None else {**run, "at_work": paired}}
    words = conn.execute(query("chunks_without_words")).fetchone()
    return Overview(
        counts=counts,
        estimated=[name for name, of in (("docstrings", "code_chunks"), ("pairs", "candidate_pairs")) if of in large],
        sources=rows("status_sources"),
        triplets=triplets,
        pairs=pairs,
        lag=list(_lag(counts["chunks"], pairs, paired, triplets, 0 if words is None else int(words[0]), generations)),
        generations=generations,
        leases=[{name: value for name, value in lease.items() if name != "encoder_id"} for lease in leases],
        training_runs=[_training_run(found, leases) for found in rows("status_training_runs")],
        rejected=[_rejected(found) for found in rows("rejected_by_reason", source_id=None)],
        errors=rows("status_errors"),
        disk=row("status_disk"),
        sessions=rows("status_sessions"),
        at=row("status_now")["at"],
    )


def _rejected(found: Row) -> Row:
    examples = found.pop("examples")
    return {**found, "example": examples[0]}


def _generation(conn: Connection, found: Row, chunks: int, leases: list[Row]) -> Row:
    encoder_id, attached, is_large, estimated, sha256 = (
        found.pop(name) for name in ("encoder_id", "attached", "is_large", "rows_estimated", "onnx_sha256")
    )
    counted = None if is_large else _count_vectors(conn, found["id"], attached=attached)
    vectors = estimated if counted is None else counted
    missing = None if vectors is None else max(0, chunks - vectors - found["rejected"])
    return {
        **found,
        "precision": found["precision"] or precision_of(found["onnx_path"], sha256),
        "chunks": chunks,
        "vectors": vectors,
        "vectors_estimated": counted is None and vectors is not None,
        "missing": missing,
        "rows_since_index": _difference(vectors, found["indexed_rows"]),
        "rows_since_calibration": _difference(vectors, found["calibrated_rows"]),
        "workers": len(
            {
                lease["pid"]
                for lease in leases
                if lease["generation_id"] == found["id"]
                or (lease["what"] == "encoder" and lease["encoder_id"] == encoder_id and found["state"] in UNFINISHED)
            }
        ),
    }


def _count_vectors(conn: Connection, generation_id: int, *, attached: bool) -> int | None:
    """Return how many vectors a generation has; None where its table is gone, or not this role's to read."""
    try:
        with conn.transaction():
            if attached:  # through the parent, which every reader may read
                counted = conn.execute(query("status_attached_vectors"), {"id": generation_id}).fetchone()
            else:
                counted = conn.execute(table.statement("status_vectors", generation_id)).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege):
        return None
    return None if counted is None else int(counted[0])


def _difference(now: int | None, then: int | None) -> int | None:
    return None if now is None or then is None else now - then


def _training_run(found: Row, leases: list[Row]) -> Row:
    at_work = any(lease["what"] == "training" and lease["run_id"] == found["id"] for lease in leases)
    rate = found["steps_per_second"] if at_work else None
    left = None if not rate or found["steps"] is None else (found["steps"] - found["last_step"]) / rate
    return {**found, "at_work": at_work, "steps_per_second": rate, "seconds_left": left}


def _lag(chunks: int, pairs: Row, paired: bool, triplets: Row, words: int, generations: list[Row]) -> Iterator[Row]:
    unfinished = pairs["run"] is not None and pairs["run"]["state"] != "finished"
    unpaired = pairs["unprepared"] + pairs["queued"]
    if unfinished and pairs["run"]["state"] == "joining":
        unpaired += pairs["run"]["chunks"] - pairs["run"]["chunks_done"]
    if unpaired or unfinished:
        yield _waits("pairs", unpaired, "pgembed pairs", paired)
    if triplets["stale"] and chunks and not unpaired and not unfinished:
        yield _waits("triplets", triplets["total"], "pgembed triplets --refresh")
    if words:
        yield _waits("words", words, "pgembed ingest PATH")
    yield from _lag_of_vectors(chunks, generations)


def _lag_of_vectors(chunks: int, generations: list[Row]) -> Iterator[Row]:
    for found in generations:
        if found["state"] == "active" and found["missing"]:
            yield _waits("vectors", found["missing"], "pgembed reindex", found["workers"] > 0, found["id"])
        elif found["state"] in UNFINISHED:
            command = f"pgembed reindex --artefact {found['onnx_path']}"
            yield _waits("vectors", found["missing"] or 0, command, found["workers"] > 0, found["id"])
    states = {found["state"] for found in generations}
    if not chunks or "active" in states:
        return
    ready = [found["id"] for found in generations if found["state"] == "ready"]
    if ready:
        yield _waits("activation", chunks, f"pgembed generations activate {ready[-1]}", generation_id=ready[-1])
    elif not states & set(UNFINISHED):
        yield _waits("vectors", chunks, "pgembed reindex --activate")


def _waits(what: str, items: int, command: str, at_work: bool = False, generation_id: int | None = None) -> Row:
    return {
        "waiting_for": what,
        "items": items,
        "generation_id": generation_id,
        "command": command,
        "at_work": at_work,
    }
