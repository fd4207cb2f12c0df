"""Token sets put in directly."""

import hashlib
from collections.abc import Callable, Iterable

import psycopg
import pytest


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
