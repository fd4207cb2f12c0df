"""`pgembed status` where something is large, locked, or not this role's to see."""

import psycopg
import pytest
from fixtures_chunks import add_chunks
from fixtures_status import Row, assert_shape, insert_run, shown, status
from fixtures_triplets import corpus
from fixtures_vectors import MadeUpEncoder, add_code, numbered_texts
from psycopg import sql

from pgembed import overview
from pgembed.db.sql import query
from pgembed.errors import DatabaseError
from pgembed.mining.pairs import find_pairs
from pgembed.mining.triplets import refresh_triplets
from pgembed.overview import collect
from pgembed.vectors import table
from pgembed.vectors.reindex import reindex_with


def test_large_tables_are_not_counted_but_estimated(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_chunks(conn, corpus(count=60))
    find_pairs(conn)
    reindex_with(database_url, encoder)
    exact = status(database_url)
    monkeypatch.setattr(overview, "_COUNTED_BYTES", -1)
    conn.execute("ANALYZE pgembed.code_chunks, pgembed.candidate_pairs, pgembed.code_embeddings_1")
    about = status(database_url)
    assert about["estimated"] == ["docstrings", "pairs"]
    for name in about["estimated"]:
        assert about["counts"][name] == exact["counts"][name] > 0  # of tables this small all rows are sampled
    assert about["generations"][0]["vectors_estimated"]
    assert about["generations"][0]["vectors"] == exact["generations"][0]["vectors"]
    text = shown(database_url)
    assert f"about {exact['counts']['pairs']:,} candidate pairs" in text
    assert f"about {exact['generations'][0]['vectors']:,}" in text


def test_a_reader_sees_all_of_it(
    conn: psycopg.Connection, database_url: str, reader_url: str, encoder: MadeUpEncoder, other: psycopg.Connection
) -> None:
    add_chunks(conn, corpus(count=40))
    find_pairs(conn)
    refresh_triplets(conn)
    reindex_with(database_url, encoder, activate=True)
    insert_run(conn, "failed", error="broke")
    other.execute(query("pairs_try_lock"))
    of_owner, of_reader = status(database_url), status(reader_url)
    assert_shape(of_reader)
    hidden = {"sessions", "leases", "at"}
    assert {k: v for k, v in of_reader.items() if k not in hidden} == {
        k: v for k, v in of_owner.items() if k not in hidden
    }
    assert [row["pid"] for row in of_reader["leases"]] == [other.info.backend_pid]
    assert other.info.backend_pid in [row["pid"] for row in of_reader["sessions"]]
    assert "Leases" in shown(reader_url)


def test_a_table_that_a_reader_may_not_read_is_estimated(
    conn: psycopg.Connection, reader_url: str, database_url: str, encoder: MadeUpEncoder
) -> None:
    add_code(conn, numbered_texts(9))
    seen: list[Row] = []

    def look() -> None:
        conn.execute(sql.SQL("REVOKE ALL ON {} FROM pgembed_reader").format(table.identifier(1)))
        seen.append(status(reader_url))

    encoder.during = look
    reindex_with(database_url, encoder, batch=3)
    for found in seen:
        (generation,) = found["generations"]
        assert generation["vectors_estimated"]
        assert 0 <= generation["vectors"] <= 9


def test_a_locked_table_is_told_and_not_waited_for(
    database_url: str, other: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, conn: psycopg.Connection
) -> None:
    monkeypatch.setattr(overview, "_LOCK_TIMEOUT", "50ms")
    with other.transaction():
        other.execute("LOCK TABLE pgembed.code_chunks IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DatabaseError, match="is locked by another session"):
            collect(conn)
    assert collect(conn).counts["chunks"] == 0
    assert conn.execute("SHOW lock_timeout").fetchone() == ("0",)
