"""A database with everything in it that a search needs."""

from pathlib import Path

import psycopg
import pytest
from fixtures_chunks import Chunk, add_chunks

from pgembed.vectors.reindex import reindex


@pytest.fixture
def searchable(conn: psycopg.Connection, database_url: str, tiny_encoder: Path) -> psycopg.Connection:
    """The test's connection, to a database of six chunks (two with a docstring) with an active generation."""
    words = ["open", "socket", "read", "line", "close", "file"]
    add_chunks(
        conn,
        [
            Chunk(
                frozenset(words[n:]),
                body=f"def f{n}():\n    return {words[n:]}",
                docstring="What it says." if n < 2 else None,
                path=f"src/m{n % 3}.py",
                line=1 + n * 10,
            )
            for n in range(6)
        ],
    )
    reindex(database_url, tiny_encoder, activate=True)
    return conn
