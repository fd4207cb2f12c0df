"""The table of one generation: plain while it fills, a partition of `code_embeddings` once it is attached."""

from typing import Any

import psycopg
from psycopg import sql

from pgembed.db.sql import query

Connection = psycopg.Connection[Any]

COLUMNS = ("generation_id", "chunk_id", "embedding")


def name(generation_id: int) -> str:
    """Return the table's name, without its schema."""
    return f"code_embeddings_{generation_id:d}"


def identifier(generation_id: int) -> sql.Identifier:
    """Return the table's qualified name for a statement."""
    return sql.Identifier("pgembed", name(generation_id))


def statement(query_name: str, generation_id: int, **parts: sql.Composable) -> sql.Composed:
    """Return a named query over the generation's table: fills in {table}, {id} and `parts`."""
    return sql.SQL(query(query_name)).format(
        table=identifier(generation_id), id=sql.Literal(int(generation_id)), **parts
    )


def create(conn: Connection, generation_id: int) -> None:
    """Make the generation's plain table, with the constraints that attaching will look for."""
    constraint = sql.Identifier(f"{name(generation_id)}_generation_id_check")
    conn.execute(statement("create_embeddings_table", generation_id, constraint=constraint))
    conn.execute(statement("skip_embedding_statistics", generation_id))


def is_attached(conn: Connection, generation_id: int) -> bool:
    """Tell whether searches see the table."""
    return _partition_state(conn, generation_id) == "attached"


def attach(conn: Connection, generation_id: int) -> None:
    """Make the table a partition. Its key, reference, check and index are adopted: no scan, no rebuild."""
    conn.execute(statement("attach_embeddings_table", generation_id))


def drop(conn: Connection, generation_id: int) -> None:
    """Detach the table without blocking readers, if it is attached, and drop it; `conn` is autocommitting."""
    match _partition_state(conn, generation_id):
        case "attached":
            conn.execute(statement("detach_embeddings_table", generation_id))
        case "pending":  # an earlier prune was interrupted
            conn.execute(statement("finish_detaching", generation_id))
    conn.execute(statement("drop_embeddings_table", generation_id))


def count_missing(conn: Connection, generation_id: int, rejected: list[int]) -> int:
    """Return how many live chunks have no vector, leaving out `rejected`."""
    row = conn.execute(
        statement("count_missing_chunks", generation_id), {"generation_id": generation_id, "rejected": rejected}
    ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate gives one row
    return int(row[0])


def _partition_state(conn: Connection, generation_id: int) -> str | None:
    row = conn.execute(query("partition_state"), {"id": generation_id}).fetchone()
    return None if row is None else str(row[0])
