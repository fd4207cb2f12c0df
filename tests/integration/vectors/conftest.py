"""A library of chunks with three finished generations, shared by the tests that only read."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest
from fixtures_vectors import Code, Library, MadeUpEncoder, add_code
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgembed.db.connection import connect
from pgembed.db.embedded import EmbeddedServer
from pgembed.db.migrations import upgrade
from pgembed.vectors.index import METHODS
from pgembed.vectors.reindex import reindex_with

SIZE = 2000


@pytest.fixture
def encoder(tmp_path: Path) -> MadeUpEncoder:
    """An encoder whose vectors follow from the texts."""
    return MadeUpEncoder(tmp_path)


def _code(n: int) -> Code:
    """Make chunk `n`: the even topics are python's, so that a filter by language and the meaning are no strangers."""
    topic = n % 40
    if n % 200 == 7:
        language = "rust"
    elif topic % 2 == 0 or n % 5 == 0:
        language = "python"
    else:
        language = "go"
    folder = ("src/core", "src/api", "tests", "100%_done", "100x-done", "back\\slash", "backslash")[n % 7]
    places = [("main" if n % 3 else "other", f"{folder}/file{n % 11}.{language}")]
    if n % 50 == 0:
        places.append(("copies", f"vendor/file{n}.{language}"))
    kind = ("function", "method", "class", "function", "window")[n % 5 if n % 9 else 4]
    return Code(f"topic{topic} code {n}", language, kind, f"topic{topic} says {n}" if n % 4 else None, tuple(places))


@pytest.fixture(scope="session")
def library(embedded_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """2,000 chunks under an IVFFLAT, an HNSW and a binary index. Write nothing into it."""
    server = make_conninfo(host=str(embedded_server.socket_dir), user="postgres")
    url = make_conninfo(server, dbname="library")
    drop = sql.SQL("DROP DATABASE IF EXISTS library WITH (FORCE)")
    with psycopg.connect(server, dbname="postgres", autocommit=True) as maintenance:
        maintenance.execute(drop)
        maintenance.execute("CREATE DATABASE library")
        upgrade(url)
        encoder = MadeUpEncoder(tmp_path_factory.mktemp("library"))
        code = [_code(n) for n in range(SIZE)]
        with connect(url, access="session") as conn:
            ids = add_code(conn, code)
            conn.execute("ANALYZE pgembed.code_chunks, pgembed.chunk_locations")
        generations = {
            method: reindex_with(url, encoder, index_method=method, fresh=True).generation_id for method in METHODS
        }
        with connect(url, access="session") as conn:
            conn.execute("UPDATE pgembed.generations SET state = 'active' WHERE id = %s", (generations["ivfflat"],))
            conn.execute("INSERT INTO pgembed.active_generation (generation_id) VALUES (%s)", (generations["ivfflat"],))
        vectors = np.array([encoder.vector(one.content) for one in code], dtype=np.float64)
        yield Library(url, encoder, dict(zip(ids, code, strict=True)), np.array(ids), vectors, generations)
        maintenance.execute(drop)


@pytest.fixture
def reader(library: Library) -> Iterator[psycopg.Connection]:
    """An autocommitting connection to the library."""
    with connect(library.url, vectors=True) as connection:
        yield connection
