"""The index of one generation: built when its vectors are in, and calibrated against exact search.

Every generation has an IVFFLAT index on `embedding::halfvec(2560)`, since the parent table declares one and attaching
would otherwise build it under locks. `hnsw` and `binary` come beside it; the IVFFLAT index then has a single list,
which costs next to nothing to build, and which the planner prefers to the graph in small tables only, where an exact
scan is cheap (60 rows at the least effort; 2,000 rows at the most).

Reads `code_chunks` and the generation's table; writes `generations` (lists, probes, index_recall).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from pgembed.db import binary_copy
from pgembed.db.sql import query
from pgembed.errors import GenerationError
from pgembed.progress import SILENT, Progress
from pgembed.vectors import table

Connection = psycopg.Connection[Any]

METHODS = ("ivfflat", "hnsw", "binary")
CALIBRATION_QUERIES = 100
CALIBRATION_K = 10
DIMENSIONS = 2560

# Below this many rows one list, which is an exact scan of half-precision vectors, is fast enough (a few milliseconds)
# and cannot be wrong; the centroids of a handful of rows would be.
_SINGLE_LIST_ROWS = 1000
_MAXIMUM_LISTS = 32768  # pgvector's
# pgvector trains its centroids on 50 rows a list, at least 10,000 (ivfbuild.c), and holds them in memory.
_SAMPLES_PER_LIST, _MINIMUM_SAMPLES = 50, 10_000
_HALFVEC_BYTES = 8 + 2 * DIMENSIONS
# Scores that differ by less are equal: the server and NumPy add 2,560 single-precision products in another order.
EQUAL_SCORES = 1e-6
# The least and the most effort that calibration tries: hnsw.ef_search, and candidates for `binary`; pgvector's limits.
GRAPH_EFFORT = (10, 1000)


@dataclass(frozen=True)
class Calibration:
    """The least effort that reached the target: probes of IVFFLAT, ef_search of hnsw, candidates of binary."""

    probes: int
    recall: float
    queries: int
    target: float

    @property
    def reached(self) -> bool:
        return self.recall >= self.target


def lists_for(rows: int) -> int:
    """Return the number of IVFFLAT lists: the square root of the rows (141 at 20,000), 1 for small tables."""
    return 1 if rows < _SINGLE_LIST_ROWS else min(round(math.sqrt(rows)), _MAXIMUM_LISTS)


def build_memory(lists: int) -> int:
    """Return the bytes that building an IVFFLAT index takes; the server refuses to build with less.

    Source: pgvector 0.8, ivfkmeans.c, ElkanKmeans: samples, two sets of centers, sums, bounds and distances.
    """
    samples = max(_MINIMUM_SAMPLES, lists * _SAMPLES_PER_LIST)
    centers = lists * (2 * _HALFVEC_BYTES + 4 * DIMENSIONS + 3 * 4)
    return samples * _HALFVEC_BYTES + centers + 4 * samples * (lists + 2) + 4 * lists * lists


def build_bytes(method: str, rows: int, lists: int) -> int:
    """Return the bytes that building an index over `rows` vectors takes; a graph is slow to build with less."""
    return build_memory(lists) if method == "ivfflat" else rows * (_HALFVEC_BYTES + 256)


def index_name(generation_id: int, method: str) -> str:
    """Return the name of a generation's index, without its schema."""
    return f"{table.name(generation_id)}_{'embedding' if method == 'ivfflat' else method}_idx"


def index_is_valid(conn: Connection, name: str) -> bool:
    """Tell whether an index is there and usable."""
    row = conn.execute(query("index_is_valid"), {"index": f"pgembed.{name}"}).fetchone()
    return row is not None and bool(row[0])


def build_index(conn: Connection, generation_id: int, *, method: str, rows: int, progress: Progress = SILENT) -> int:
    """Build what is missing of the generation's indexes over its `rows` vectors; return the IVFFLAT index's lists.

    Raises:
        GenerationError: there is no such method.
    """
    if method not in METHODS:
        raise GenerationError(f"There is no index method {method!r}; there are {', '.join(METHODS)}.")
    lists = lists_for(rows) if method == "ivfflat" else 1
    for wanted in dict.fromkeys(("ivfflat", method)):
        if index_is_valid(conn, index_name(generation_id, wanted)):
            continue
        allow_memory(conn, build_bytes(wanted, rows, lists), progress)
        name = sql.Identifier(index_name(generation_id, wanted))
        what = f"{lists:,} list{'s' if lists > 1 else ''} over " if wanted == "ivfflat" else ""
        progress.say(f"Building the {wanted} index: {what}{rows:,} vectors.")
        parts = {"lists": sql.Literal(lists)} if wanted == "ivfflat" else {}
        conn.execute(table.statement(f"create_{wanted}_index", generation_id, index=name, **parts))
    conn.execute(query("note_generation_index"), {"id": generation_id, "lists": lists})
    return lists


def rebuild_index(conn: Connection, generation_id: int, *, rows: int, progress: Progress = SILENT) -> int:
    """Build the IVFFLAT index anew for `rows` vectors while searches and inserts go on; return its lists.

    It stays attached. Needs an autocommitting connection.
    """
    lists = lists_for(rows)
    allow_memory(conn, build_memory(lists), progress)
    progress.say(f"Rebuilding the index: {lists:,} lists over {rows:,} vectors.")
    name = sql.Identifier("pgembed", index_name(generation_id, "ivfflat"))
    conn.execute(sql.SQL(query("set_index_lists")).format(index=name, lists=sql.Literal(lists)))
    conn.execute(sql.SQL(query("rebuild_index")).format(index=name))
    conn.execute(query("note_generation_index"), {"id": generation_id, "lists": lists})
    return lists


def calibrate_probes(
    conn: Connection,
    generation_id: int,
    queries: npt.NDArray[np.float32],
    *,
    target_recall: float = 0.95,
    progress: Progress = SILENT,
) -> Calibration:
    """Find and store the least effort at which the index reaches `target_recall`; the generation is attached.

    `queries` is (Q, 2560) float32, as the encoder makes them of what people ask. Recall is the mean share of ten that
    the search function itself returns and that score as well as the exact tenth: chunks that begin alike may share a
    vector, and one of them is as good as another. Where no effort reaches the target, the largest is kept.

    Source: recall by distance with a tolerance, as in ann-benchmarks (Aumüller, Bernhardsson, Faithfull 2018).

    Raises:
        GenerationError: there is nothing to measure with, or the planner would not use the index.
    """
    ids, scores = exact_nearest(conn, generation_id, queries, CALIBRATION_K)
    if ids.size == 0:
        raise GenerationError(f"Generation {generation_id} cannot be calibrated: it has no vectors, or no queries do.")
    row = conn.execute(query("get_index_settings"), {"id": generation_id}).fetchone()
    assert row is not None  # noqa: S101 - the caller has read this row
    method, lists = row
    low, high = (1, int(lists)) if method == "ivfflat" else GRAPH_EFFORT
    measured: dict[int, float] = {}
    # The effort is tried where a search reads it, in the generation's row; nobody sees it before the commit.
    with conn.transaction(), progress.task("Calibrating", None, "searches") as task:

        def recall(effort: int) -> float:
            if effort not in measured:
                _store(conn, generation_id, effort, None)
                measured[effort] = _recall(conn, generation_id, queries, scores)
                task.advance(len(queries))
                task.note(f"recall {measured[effort]:.3f} at {effort}")
            return measured[effort]

        effort = low
        while recall(effort) < target_recall and effort < high:
            low, effort = effort, min(2 * effort, high)
        # between `low`, which falls short, and `effort`; to within a sixteenth, which the sample does not tell apart
        while recall(effort) >= target_recall and effort - low > max(1, effort // 16):
            middle = (low + effort) // 2
            if recall(middle) >= target_recall:
                effort = middle
            else:
                low = middle
        _store(conn, generation_id, effort, recall(effort))
        _require_index(conn, generation_id, method, queries[0])
        _store_curve(conn, generation_id, measured, target_recall, len(queries))
    return Calibration(effort, measured[effort], len(queries), target_recall)


def exact_nearest(
    conn: Connection, generation_id: int, queries: npt.NDArray[np.float32], k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return (Q, k) chunk ids and scores, nearest first, by reading every vector once; k is at most the rows."""
    return exact_of(conn, table.statement("all_embeddings", generation_id), queries, k)


def exact_of(
    conn: Connection, vectors: sql.Composed, queries: npt.NDArray[np.float32], k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return what `exact_nearest` does, of the rows that the statement `vectors` copies out."""
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    scores = np.empty((len(queries), 0), dtype=np.float32)
    ids = np.empty((len(queries), 0), dtype=np.int64)
    with conn.cursor() as cursor, cursor.copy(vectors) as copy:
        for keys, embeddings in binary_copy.decode(copy, 1, DIMENSIONS):
            block = (unit @ embeddings.T) / np.linalg.norm(embeddings, axis=1)
            scores = np.concatenate((scores, block), axis=1)
            ids = np.concatenate((ids, np.broadcast_to(keys[:, 0], block.shape)), axis=1)
            best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            scores = np.take_along_axis(scores, best, axis=1)
            ids = np.take_along_axis(ids, best, axis=1)
    return ids, scores


def _recall(
    conn: Connection, generation_id: int, queries: npt.NDArray[np.float32], exact: npt.NDArray[np.float32]
) -> float:
    """Return the mean share of (Q, k) that the search function finds with scores no worse than the k-th of `exact`."""
    found = 0
    for vector, best in zip(queries, exact, strict=True):
        row = conn.execute(
            query("nearest_scores"), {"query": vector, "k": exact.shape[1], "generation_id": generation_id}
        ).fetchone()
        assert row is not None  # noqa: S101 - an aggregate gives one row
        found += sum(score >= best[-1] - EQUAL_SCORES for score in row[0] or ())
    return found / exact.size


def _store(conn: Connection, generation_id: int, probes: int, recall: float | None) -> None:
    conn.execute(query("note_generation_probes"), {"id": generation_id, "probes": probes, "index_recall": recall})


def _store_curve(conn: Connection, generation_id: int, measured: dict[int, float], target: float, queries: int) -> None:
    """Keep every effort that was tried, with its recall: `eval --report` draws them."""
    curve = [[effort, recall] for effort, recall in sorted(measured.items())]
    calibration = {"k": CALIBRATION_K, "queries": queries, "target": target, "recall": curve}
    conn.execute(
        query("note_generation_metrics"), {"id": generation_id, "metrics": Jsonb({"calibration_curve": calibration})}
    )


def _require_index(conn: Connection, generation_id: int, method: str, vector: npt.NDArray[np.float32]) -> None:
    row = conn.execute(
        query("nearest_plan"), {"query": vector, "k": CALIBRATION_K, "generation_id": generation_id}
    ).fetchone()
    plan = "" if row is None else str(row[0])
    # beside an HNSW graph the single list, an exact scan, is as good: the planner takes it where it costs less
    if not any(index_name(generation_id, usable) in plan for usable in (method, "ivfflat")):
        raise GenerationError(f"The planner does not use the index of generation {generation_id}:\n{plan}")


def allow_memory(conn: Connection, needed_bytes: int, progress: Progress) -> None:
    """Raise this session's maintenance_work_mem to what a build needs, and say so."""
    row = conn.execute(query("maintenance_memory")).fetchone()
    allowed = 0 if row is None else int(row[0])
    wanted = needed_bytes + needed_bytes // 8
    if allowed < wanted:
        progress.say(
            f"The index needs {wanted / 2**20:,.0f} MB to build, more than maintenance_work_mem "
            f"({allowed / 2**20:,.0f} MB): raised for this session."
        )
        conn.execute(query("set_maintenance_memory"), {"kilobytes": math.ceil(wanted / 1024)})
