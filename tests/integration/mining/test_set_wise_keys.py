"""What foreign keys would promise of candidate_pairs and jaccard_sets, held by triggers a statement at a time."""

import threading
from collections.abc import Callable, Iterable

import psycopg
import pytest

from pgembed.db.connection import connect
from pgembed.mining.pairs import find_pairs

AddSets = Callable[[Iterable[frozenset[int]]], list[int]]
ALIKE = [frozenset(range(1, 21)), frozenset(range(2, 21)), frozenset(range(3, 21)), frozenset(range(101, 121))]


def pairs(conn: psycopg.Connection) -> list[tuple[int, int]]:
    return conn.execute("SELECT chunk_a, chunk_b FROM pgembed.candidate_pairs ORDER BY 1, 2").fetchall()


def sets(conn: psycopg.Connection) -> list[int]:
    return [row[0] for row in conn.execute("SELECT chunk_id FROM pgembed.jaccard_sets ORDER BY 1")]


def put(conn: psycopg.Connection, a: int, b: int) -> None:
    conn.execute(
        "INSERT INTO pgembed.candidate_pairs (chunk_a, chunk_b, intersection, jaccard) VALUES (%s, %s, 1, 0.5)", (a, b)
    )


def test_a_pair_of_a_chunk_that_is_not_there_is_refused(conn: psycopg.Connection, add_sets: AddSets) -> None:
    a, b, *_ = add_sets(ALIKE)
    with pytest.raises(psycopg.errors.ForeignKeyViolation, match="chunk 999999"):
        put(conn, a, 999_999)
    assert pairs(conn) == []
    put(conn, a, b)
    assert pairs(conn) == [(a, b)]


def test_a_deleted_chunk_takes_its_pairs_and_its_set_along(conn: psycopg.Connection, add_sets: AddSets) -> None:
    a, b, c, d = add_sets(ALIKE)
    find_pairs(conn, min_jaccard=0.7)
    assert pairs(conn) == [(a, b), (a, c), (b, c)]
    conn.execute("DELETE FROM pgembed.code_chunks WHERE id = %s", (b,))
    assert pairs(conn) == [(a, c)]
    assert sets(conn) == [a, c, d]
    conn.execute("DELETE FROM pgembed.code_chunks")
    assert (pairs(conn), sets(conn)) == ([], [])


def test_truncated_chunks_leave_nothing(conn: psycopg.Connection, add_sets: AddSets) -> None:
    add_sets(ALIKE)
    find_pairs(conn, min_jaccard=0.7)
    conn.execute("TRUNCATE pgembed.code_chunks CASCADE")
    assert (pairs(conn), sets(conn)) == ([], [])


def test_a_chunk_cannot_go_while_a_pair_of_it_is_being_stored(
    conn: psycopg.Connection, database_url: str, add_sets: AddSets
) -> None:
    a, b, *_ = add_sets(ALIKE)
    deleted = threading.Event()

    def delete() -> None:
        with connect(database_url, access="session") as own:
            own.execute("DELETE FROM pgembed.code_chunks WHERE id = %s", (b,))
        deleted.set()

    deleter = threading.Thread(target=delete)
    with conn.transaction():
        put(conn, a, b)
        deleter.start()
        assert not deleted.wait(0.5)
    deleter.join(10)
    assert deleted.is_set()
    # the deletion began before the pair was committed, and takes it along all the same
    assert pairs(conn) == []


def test_a_pair_waits_for_a_deletion_and_is_then_refused(
    conn: psycopg.Connection, database_url: str, add_sets: AddSets
) -> None:
    a, b, *_ = add_sets(ALIKE)
    refused: list[BaseException] = []

    def store() -> None:
        with connect(database_url, access="session") as own:
            try:
                put(own, a, b)
            except psycopg.errors.ForeignKeyViolation as error:
                refused.append(error)

    storer = threading.Thread(target=store)
    with conn.transaction():
        conn.execute("DELETE FROM pgembed.code_chunks WHERE id = %s", (b,))
        storer.start()
        storer.join(0.5)
        assert storer.is_alive()
    storer.join(10)
    assert len(refused) == 1
    assert pairs(conn) == []
