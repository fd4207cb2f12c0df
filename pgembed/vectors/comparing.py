"""Index methods side by side, on a sample of a generation's own vectors: recall, latency, build time, size.

Everything happens in one transaction that is rolled back: whatever ends it, no table and no setting stays. Searches
and reindexes go on meanwhile. The statement is the one that a search of a generation runs; what the SQL function adds
to it, about a third of a millisecond, is left out.

Reads a generation's table; writes a scratch table in schema `pgembed`, which goes with the transaction.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql

from pgembed.db.sql import query
from pgembed.errors import GenerationError
from pgembed.progress import SILENT, Progress
from pgembed.vectors import table
from pgembed.vectors.generations import get_generation
from pgembed.vectors.index import (
    EQUAL_SCORES,
    GRAPH_EFFORT,
    METHODS,
    allow_memory,
    build_bytes,
    exact_of,
    lists_for,
)

Connection = psycopg.Connection[Any]
Floats = npt.NDArray[np.float32]

EFFORTS = {"ivfflat": "probes", "hnsw": "ef_search", "binary": "candidates"}
"""What a method's effort is called."""
SAMPLE = 20_000
_ENOUGH = 0.999  # recall beyond which more effort is not tried
_WARMING = 10  # searches at the most effort before anything is timed
_EXACT_SEARCHES = 20
_EQUAL_MS = 1.1  # medians within a tenth are equal: then the smaller index is better

_SETTINGS = {
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_sort": "off",
    "ivfflat.iterative_scan": "relaxed_order",
    "hnsw.iterative_scan": "relaxed_order",
    "hnsw.max_scan_tuples": "2147483647",
}


@dataclass(frozen=True)
class Point:
    """What one effort gives."""

    effort: int
    recall: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class Measured:
    """One method over the sample."""

    method: str
    effort_name: str
    lists: int | None
    build_seconds: float
    size_bytes: int
    points: list[Point]


@dataclass(frozen=True)
class Recommendation:
    """The method, and the effort at which it reaches the target in the least time."""

    method: str
    point: Point


@dataclass(frozen=True)
class IndexComparison:
    """What was measured, on what, and what follows."""

    generation_id: int
    method_of_generation: str
    rows: int
    rows_of_generation: int
    queries: int
    k: int
    target_recall: float
    server: str
    pgvector: str
    shared_buffers: str
    exact_p50_ms: float
    exact_p95_ms: float
    methods: list[Measured]
    recommended: Recommendation | None
    """None where no method reached the target."""

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {**asdict(self), "cache": "warm"}


def compare_indexes(
    conn: Connection,
    generation_id: int,
    queries: Floats,
    *,
    sample: int = SAMPLE,
    k: int = 10,
    target_recall: float = 0.95,
    methods: Sequence[str] = METHODS,
    progress: Progress = SILENT,
) -> IndexComparison:
    """Build each of `methods` over at most `sample` vectors and search it for each of `queries`, (Q, 2560) float32.

    Recall is the mean share of k that score as well as the exact k-th, as in `calibrate_probes`. Each search is timed
    from the client, one after another on one connection, with a warm cache. `conn` has pgvector's types registered.

    Raises:
        GenerationError: the generation has no vectors, or the planner would not use an index.
    """
    name = f"index_sample_{conn.info.backend_pid}"
    scratch = sql.Identifier("pgembed", name)
    with conn.transaction(force_rollback=True):
        conn.execute(query("use_vector_path"), {"local": True})
        versions = conn.execute(query("server_versions")).fetchone()
        assert versions is not None  # noqa: S101 - a SELECT without FROM gives one row
        conn.execute(sql.SQL(query("create_sample_table")).format(table=scratch))
        filling = sql.SQL(query("fill_sample_table")).format(table=scratch, vectors=table.identifier(generation_id))
        rows = conn.execute(filling, {"rows": sample}).rowcount
        if rows == 0 or len(queries) == 0:
            raise GenerationError(f"Generation {generation_id} has no vectors to build an index over, or no queries.")
        k = min(k, rows)
        _, scores = exact_of(conn, sql.SQL(query("all_embeddings")).format(table=scratch), queries, k)
        asked = _Asked(conn, queries, scores[:, k - 1], k)
        _set(conn, {"jit": "off"})
        exact = sql.SQL(query("exact_in_sample")).format(table=scratch)
        _, exact_ms = asked.run(exact, 0, most=_EXACT_SEARCHES)
        _set(conn, _SETTINGS)
        measured = [_measure(conn, method, name, rows, asked, progress) for method in methods]
    generation = get_generation(conn, generation_id)
    p50, p95 = _percentiles(exact_ms)
    return IndexComparison(
        generation_id=generation_id,
        method_of_generation=generation.index_method,
        rows=rows,
        rows_of_generation=generation.row_count or rows,
        queries=len(queries),
        k=k,
        target_recall=target_recall,
        server=versions[0],
        pgvector=versions[1],
        shared_buffers=versions[2],
        exact_p50_ms=p50,
        exact_p95_ms=p95,
        methods=measured,
        recommended=recommend(measured, target_recall),
    )


def recommend(measured: Sequence[Measured], target_recall: float) -> Recommendation | None:
    """Return the method that reaches the target in the least median time; of equal ones the smaller index.

    Medians within a tenth of the least are equal: a run does not tell them apart.
    """
    reaching = [
        (one, min(enough, key=lambda point: point.p50_ms))
        for one in measured
        if (enough := [point for point in one.points if point.recall >= target_recall])
    ]
    if not reaching:
        return None
    least = min(point.p50_ms for _, point in reaching)
    equal = [(one, point) for one, point in reaching if point.p50_ms <= least * _EQUAL_MS]
    one, point = min(equal, key=lambda pair: (pair[0].size_bytes, pair[1].p50_ms))
    return Recommendation(one.method, point)


def efforts_for(method: str, lists: int, k: int) -> list[int]:
    """Return the efforts to try: doubled from the least to the most."""
    low, high = (1, lists) if method == "ivfflat" else (max(GRAPH_EFFORT[0], k), GRAPH_EFFORT[1])
    efforts = [low]
    while efforts[-1] < high:
        efforts.append(min(2 * efforts[-1], high))
    return efforts


@dataclass(frozen=True)
class _Asked:
    """The queries, the score that a hit must reach for each, and how they are run."""

    conn: Connection
    queries: Floats
    least_scores: Floats
    k: int

    def run(
        self, statement: sql.Composed, effort: int, *, most: int | None = None, told: Callable[[], None] | None = None
    ) -> tuple[float, list[float]]:
        """Return the recall, and the milliseconds of each search."""
        found, milliseconds = 0, []
        asked = list(zip(self.queries, self.least_scores, strict=True))[:most]
        for vector, least in asked:
            parameters = {"query": vector, "k": self.k, "candidates": max(self.k, effort)}
            started = time.perf_counter()
            hits = self.conn.execute(statement, parameters, prepare=False).fetchall()
            milliseconds.append((time.perf_counter() - started) * 1000)
            found += sum(score >= least - EQUAL_SCORES for _, score in hits)
            if told is not None:
                told()
        return found / (self.k * len(asked)), milliseconds


def _measure(conn: Connection, method: str, sample: str, rows: int, asked: _Asked, progress: Progress) -> Measured:
    lists = lists_for(rows) if method == "ivfflat" else None
    scratch, name = sql.Identifier("pgembed", sample), f"{sample}_{method}"
    allow_memory(conn, build_bytes(method, rows, lists or 1), progress)
    progress.say(f"Building the {method} index over {rows:,} vectors.")
    parts = {"lists": sql.Literal(lists)} if lists is not None else {}
    started = time.perf_counter()
    conn.execute(sql.SQL(query(f"create_{method}_index")).format(index=sql.Identifier(name), table=scratch, **parts))
    seconds = time.perf_counter() - started
    size = conn.execute(query("index_size"), {"index": f"pgembed.{name}"}).fetchone()
    order = sql.SQL(query("order_by_bits" if method == "binary" else "order_by_halves"))
    statement = sql.SQL(query("nearest_in_sample")).format(table=scratch, order=order)
    efforts = efforts_for(method, lists or 1, asked.k)
    _set_effort(conn, method, efforts[-1], lists)
    asked.run(statement, efforts[-1], most=_WARMING)
    points: list[Point] = []
    with progress.task(f"Searching by {method}", len(efforts) * len(asked.queries), "searches") as task:
        for effort in efforts:
            _set_effort(conn, method, effort, lists)
            _require_index(conn, statement, name, asked, effort)
            recall, milliseconds = asked.run(statement, effort if method == "binary" else asked.k, told=task.advance)
            points.append(Point(effort, recall, *_percentiles(milliseconds)))
            task.note(f"recall {recall:.3f} at {effort}")
            if recall >= _ENOUGH:
                break
    conn.execute(sql.SQL(query("drop_index")).format(index=sql.Identifier("pgembed", name)))
    return Measured(method, EFFORTS[method], lists, seconds, int(size[0]) if size else 0, points)


def _set_effort(conn: Connection, method: str, effort: int, lists: int | None) -> None:
    if method == "ivfflat":
        _set(conn, {"ivfflat.probes": str(effort), "ivfflat.max_probes": str(lists)})
    else:
        _set(conn, {"hnsw.ef_search": str(effort)})


def _set(conn: Connection, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        conn.execute(query("set_local"), {"name": name, "value": value})


def _require_index(conn: Connection, statement: sql.Composed, name: str, asked: _Asked, effort: int) -> None:
    explained = sql.SQL(query("explain_sample")).format(statement=statement)
    parameters = {"query": asked.queries[0], "k": asked.k, "candidates": max(asked.k, effort)}
    plan = "\n".join(str(row[0])[:200] for row in conn.execute(explained, parameters))
    if f"using {name} " not in plan:
        raise GenerationError(f"The planner does not use the index {name}:\n{plan}")


def _percentiles(milliseconds: Sequence[float]) -> tuple[float, float]:
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return float(p50), float(p95)
