"""A database with everything in it that a search needs; another session beside the test's; a role that reads."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from fixtures_chunks import Chunk, add_chunks
from fixtures_vectors import MadeUpEncoder
from psycopg.conninfo import make_conninfo

from pgembed.db.connection import connect
from pgembed.db.roles import apply_roles
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


@pytest.fixture
def encoder(tmp_path: Path) -> MadeUpEncoder:
    return MadeUpEncoder(tmp_path)


@pytest.fixture
def other(database_url: str) -> Iterator[psycopg.Connection]:
    """A session of another command."""
    with connect(database_url) as connection:
        yield connection


@pytest.fixture
def reader_url(conn: psycopg.Connection, database_url: str) -> str:
    apply_roles(conn)
    return make_conninfo(database_url, options="-c role=pgembed_reader")
