"""Exact rankings by the server: vectors into temporary tables by binary COPY, then every query against every document.

Reads `code_embeddings`, where a generation is ranked; writes temporary tables only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from pgembed.db.binary_copy import copy_rows
from pgembed.db.sql import query
from pgembed.evaluation.metrics import DEPTH

Connection = psycopg.Connection[Any]
Embeddings = npt.NDArray[np.float32]

_DOCUMENTS = sql.Identifier("pg_temp", "evaluation_documents")
_QUERIES = sql.Identifier("pg_temp", "evaluation_queries")

# Distances that one statement sorts: 40 MB. More queries in a batch save scans, which are a tenth of the work.
_BATCH_DISTANCES = 1_000_000
_BATCH_QUERIES = 500


@contextmanager
def temporary_documents(conn: Connection) -> Iterator[None]:
    """Hold a table for documents' vectors while the block runs, empty at first; `add_documents` fills it."""
    with _vectors_table(conn, _DOCUMENTS):
        yield


def add_documents(conn: Connection, first_id: int, embeddings: Embeddings) -> None:
    """Store `embeddings` (N, 2560) under the ids from `first_id` on.

    Raises:
        BadVectorError: one of them is not finite, zero, or out of range; named by its id.
    """
    copy_rows(conn, _DOCUMENTS, ("id", "embedding"), _ids(first_id, embeddings), embeddings)


def rank_documents(conn: Connection, queries: Embeddings, *, depth: int = DEPTH) -> list[list[int]]:
    """Return for each of `queries` (Q, 2560) the ids of the nearest documents of the temporary table, best first.

    Documents at equal distance come in the order of their ids.
    """
    return _rank(conn, queries, sql.SQL(query("temporary_documents")), depth)


def rank_generation(
    conn: Connection, generation_id: int, queries: Embeddings, *, depth: int = DEPTH
) -> list[list[int]]:
    """Return for each of `queries` (Q, 2560) the nearest chunks of a generation, by exact search past its index."""
    documents = sql.SQL(query("generation_documents")).format(generation_id=sql.Literal(int(generation_id)))
    return _rank(conn, queries, documents, depth)


def _rank(conn: Connection, queries: Embeddings, documents: sql.Composable, depth: int) -> list[list[int]]:
    statement = sql.SQL(query("rank_documents")).format(documents=documents)
    counted = conn.execute(sql.SQL(query("count_documents")).format(documents=documents)).fetchone()
    batch = max(1, min(_BATCH_QUERIES, _BATCH_DISTANCES // max(1, counted[0] if counted else 0)))
    rankings: list[list[int]] = [[] for _ in queries]
    with _vectors_table(conn, _QUERIES):
        copy_rows(conn, _QUERIES, ("id", "embedding"), _ids(0, queries), queries)
        for first in range(0, len(queries), batch):
            with conn.transaction():
                conn.execute(query("prepare_ranking"))
                parameters = {"first": first, "end": first + batch, "depth": depth}
                for number, ids in conn.execute(statement, parameters):
                    rankings[number] = ids
    return rankings


@contextmanager
def _vectors_table(conn: Connection, table: sql.Identifier) -> Iterator[None]:
    drop = sql.SQL(query("drop_vectors_table")).format(table=table)
    with conn.transaction():
        conn.execute(query("prepare_ranking"))
        conn.execute(drop)
        conn.execute(sql.SQL(query("create_vectors_table")).format(table=table))
    try:
        yield
    finally:
        # after an error in the caller's own transaction nothing can be run, and the table goes with it
        if not conn.closed and conn.info.transaction_status != TransactionStatus.INERROR:
            conn.execute(drop)


def _ids(first: int, embeddings: Embeddings) -> npt.NDArray[np.int64]:
    return np.arange(first, first + len(embeddings), dtype=np.int64)
