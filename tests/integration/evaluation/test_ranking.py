"""Rankings by the server against brute force in NumPy."""

import numpy as np
import numpy.typing as npt
import psycopg
import pytest
from psycopg import sql

from pgembed.db.binary_copy import BadVectorError, copy_rows
from pgembed.evaluation import ranking
from pgembed.evaluation.ranking import add_documents, rank_documents, rank_generation, temporary_documents


def _vectors(count: int, seed: int) -> npt.NDArray[np.float32]:
    # small whole numbers in a few places: cosines are exact enough for NumPy and the server to agree on the order
    vectors = np.zeros((count, 2560), dtype=np.float32)
    vectors[:, :24] = np.random.default_rng(seed).normal(size=(count, 24))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _brute_force(documents: npt.NDArray[np.float32], queries: npt.NDArray[np.float32], depth: int) -> list[list[int]]:
    cosines = queries.astype(np.float64) @ documents.astype(np.float64).T
    return np.argsort(-cosines, axis=1, kind="stable")[:, :depth].tolist()


@pytest.mark.parametrize("depth", [1, 100])
def test_the_order_is_that_of_brute_force(
    conn: psycopg.Connection, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "_BATCH_DISTANCES", 3500)  # several batches, the last one short
    documents, queries = _vectors(500, 1), _vectors(40, 2)
    with temporary_documents(conn):
        add_documents(conn, 0, documents[:300])
        add_documents(conn, 300, documents[300:])
        found = rank_documents(conn, queries, depth=depth)
    assert found == _brute_force(documents, queries, depth)


def test_fewer_documents_than_the_depth_are_all_ranked(conn: psycopg.Connection) -> None:
    documents, queries = _vectors(5, 1), _vectors(3, 2)
    with temporary_documents(conn):
        add_documents(conn, 0, documents)
        assert rank_documents(conn, queries) == _brute_force(documents, queries, 5)


def test_equal_distances_come_in_the_order_of_ids(conn: psycopg.Connection) -> None:
    documents = np.repeat(_vectors(1, 1), 50, axis=0)
    with temporary_documents(conn):
        add_documents(conn, 0, documents)
        assert rank_documents(conn, _vectors(1, 2)) == [list(range(50))]


def test_the_difference_of_one_bit_in_full_precision_counts(conn: psycopg.Connection) -> None:
    documents = np.zeros((2, 2560), dtype=np.float32)
    documents[:, 0] = 1
    documents[0, 1] = 2e-3  # cosine 0.999998: equal in half precision
    query = np.zeros((1, 2560), dtype=np.float32)
    query[0, 0] = 1
    with temporary_documents(conn):
        add_documents(conn, 0, documents)
        assert rank_documents(conn, query) == [[1, 0]]


def test_a_generation_is_ranked_past_its_index(conn: psycopg.Connection) -> None:
    conn.execute("CREATE TABLE pgembed.code_embeddings_7 PARTITION OF pgembed.code_embeddings FOR VALUES IN (7)")
    conn.execute("SET session_replication_role = replica")  # vectors without chunks will do here
    documents, queries = _vectors(300, 3), _vectors(20, 4)
    keys = np.column_stack((np.full(300, 7), np.arange(1000, 1300)))
    columns = ("generation_id", "chunk_id", "embedding")
    copy_rows(conn, sql.Identifier("pgembed", "code_embeddings_7"), columns, keys, documents)
    expected = [[1000 + number for number in numbers] for numbers in _brute_force(documents, queries, 100)]
    assert rank_generation(conn, 7, queries) == expected
    assert rank_generation(conn, 8, queries) == [[]] * 20


def test_nothing_of_it_stays_in_the_session(conn: psycopg.Connection) -> None:
    before = [conn.execute(f"SHOW {name}").fetchone() for name in ("search_path", "work_mem", "jit")]
    with temporary_documents(conn):
        add_documents(conn, 0, _vectors(3, 1))
        rank_documents(conn, _vectors(2, 2))
    assert [conn.execute(f"SHOW {name}").fetchone() for name in ("search_path", "work_mem", "jit")] == before
    assert conn.execute("SELECT to_regclass('pg_temp.evaluation_documents')").fetchone() == (None,)
    assert conn.execute("SELECT to_regclass('pg_temp.evaluation_queries')").fetchone() == (None,)


def test_a_failed_evaluation_leaves_room_for_the_next(conn: psycopg.Connection) -> None:
    with pytest.raises(BadVectorError, match="1 vectors"), temporary_documents(conn):
        add_documents(conn, 0, np.zeros((1, 2560), dtype=np.float32))
    with temporary_documents(conn):
        add_documents(conn, 0, _vectors(3, 1))
        assert len(rank_documents(conn, _vectors(1, 2))[0]) == 3


def test_it_works_inside_a_transaction_and_under_a_search_path_without_pgvector(conn: psycopg.Connection) -> None:
    conn.execute("SET search_path = pg_catalog")
    documents, queries = _vectors(20, 1), _vectors(3, 2)
    with conn.transaction(), temporary_documents(conn):
        add_documents(conn, 0, documents)
        assert rank_documents(conn, queries) == _brute_force(documents, queries, 20)
