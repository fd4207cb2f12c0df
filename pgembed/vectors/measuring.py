"""What searches of one generation are worth and cost through its index: recall against exact search, milliseconds.

Reads a generation's table, through the SQL function `pgembed.search` and by a copy of all its vectors; writes nothing.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg

from pgembed.db.sql import query
from pgembed.errors import SearchError
from pgembed.vectors.generations import Generation
from pgembed.vectors.index import EQUAL_SCORES, exact_nearest

Connection = psycopg.Connection[Any]

K = 10
_WARMING = 10  # searches before the first that is timed


@dataclass(frozen=True)
class SearchMeasure:
    """Recall and latency of the SQL function's k hits, one search after another on one connection, cache warm."""

    recall: float
    p50_ms: float
    p95_ms: float
    k: int
    queries: int
    rows: int
    effort: int
    """Probes of IVFFLAT, ef_search of hnsw, candidates of binary: the calibrated ones."""

    def to_metrics(self) -> dict[str, float]:
        """Return it as plain numbers."""
        return dict(vars(self))

    @staticmethod
    def is_of(generation: Generation, measured: dict[str, float] | None) -> bool:
        """Tell whether `measured` is about the generation as it is: as many rows, the same effort."""
        return measured is not None and (measured["rows"], measured["effort"]) == (
            generation.row_count,
            generation.probes,
        )


def measure_search(conn: Connection, generation: Generation, queries: npt.NDArray[np.float32]) -> SearchMeasure:
    """Search a generation for each of `queries`, (Q, 2560) float32; `conn` has pgvector's types registered.

    Recall is the mean share of k that score as well as the exact k-th. Milliseconds are the client's, and leave out
    what embedding the text takes.

    Raises:
        SearchError: the generation has no vectors.
    """
    _, exact = exact_nearest(conn, generation.id, queries, K)
    if exact.size == 0:
        raise SearchError(f"Generation {generation.id} has no vectors to search.")
    for vector in queries[:_WARMING]:
        _search(conn, generation.id, vector)
    found, milliseconds = 0, []
    for vector, best in zip(queries, exact, strict=True):
        started = time.perf_counter()
        scores = _search(conn, generation.id, vector)
        milliseconds.append((time.perf_counter() - started) * 1000)
        found += sum(score >= best[-1] - EQUAL_SCORES for score in scores)
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return SearchMeasure(
        recall=found / exact.size,
        p50_ms=float(p50),
        p95_ms=float(p95),
        k=K,
        queries=len(queries),
        rows=generation.row_count or 0,
        effort=generation.probes or 0,
    )


def _search(conn: Connection, generation_id: int, vector: npt.NDArray[np.float32]) -> list[float]:
    rows = conn.execute(query("search_scores"), {"query": vector, "k": K, "generation_id": generation_id}).fetchall()
    return [row[1] for row in rows]
