"""Token sets put in directly; and a corpus with vectors."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psycopg
import pytest
from fixtures_chunks import add_chunks
from fixtures_triplets import activate_vectors, corpus
from fixtures_vectors import MadeUpEncoder


@pytest.fixture
def add_sets(conn: psycopg.Connection) -> Callable[[Iterable[frozenset[int]]], list[int]]:
    """Insert token sets as chunks that stand nowhere; return their ids in the same order."""
    serial = 0

    def add(sets: Iterable[frozenset[int]]) -> list[int]:
        nonlocal serial
        rows = []
        for members in sets:
            serial += 1
            rows.append((hashlib.sha256(str(serial).encode()).digest(), sorted(members)))
        with conn.cursor() as cursor:
            cursor.executemany(
                """INSERT INTO pgembed.code_chunks (sha256, language, kind, content, body, token_ids, line_count)
                   VALUES (%s, 'python', 'function', '', '', %s, 1) RETURNING id""",
                rows,
                returning=True,
            )
            ids = []
            while rows:
                row = cursor.fetchone()
                assert row is not None
                ids.append(int(row[0]))
                if not cursor.nextset():
                    break
        return ids

    return add


@pytest.fixture
def encoder(tmp_path: Path) -> MadeUpEncoder:
    """An encoder whose vectors follow from the texts."""
    return MadeUpEncoder(tmp_path)


@pytest.fixture
def vectors(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> dict[bytes, npt.NDArray[np.float32]]:
    """The corpus in the database with an active generation; each chunk's vector by its sha256."""
    chunks = corpus()
    add_chunks(conn, chunks)
    activate_vectors(conn, database_url, encoder)
    return {chunk.sha256: encoder.vector(chunk.body) for chunk in chunks}
