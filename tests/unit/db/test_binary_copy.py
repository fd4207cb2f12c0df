import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pgvector import Vector
from psycopg import sql

from pgembed.db.binary_copy import (
    HEADER,
    TRAILER,
    BadVectorError,
    bad_rows,
    copy_rows,
    decode,
    encode,
    generation_keys,
    write_embeddings,
)
from pgembed.errors import DatabaseError

_FLOATS = st.floats(width=32, allow_nan=False)
_SPECIAL = st.sampled_from(
    [0.0, -0.0, 1e-45, 2.0**-24, 2.0**-25, -(2.0**-24), 1.0, 65504.0, -65504.0, 65536.0, -70000.0, 3e38]
)
_NOT_FINITE = st.sampled_from([float("nan"), float("inf"), float("-inf")])


def _stream(keys: npt.NDArray[np.int64], embeddings: npt.NDArray[np.float32]) -> bytes:
    return HEADER + b"".join(bytes(block) for block in encode(keys, embeddings)) + TRAILER


def _pieces(stream: bytes, sizes: list[int]) -> Iterator[bytes]:
    start = 0
    for size in sizes:
        yield stream[start : start + size]
        start += size
    yield stream[start:]


def _random(rows: int, dimensions: int, width: int = 2) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    random = np.random.default_rng(rows * 1000 + dimensions)
    keys = random.integers(-(2**63), 2**63, (rows, width), dtype=np.int64, endpoint=False)
    return keys, random.standard_normal((rows, dimensions), dtype=np.float32)


@pytest.fixture
def vectors(conn: psycopg.Connection) -> psycopg.Connection:
    """A database with a table (a bigint, b bigint, v vector) of this session."""
    conn.execute("CREATE TEMP TABLE t (a bigint, b bigint, v vector)")
    return conn


@given(data=st.data(), rows=st.sampled_from([0, 1, 2, 127, 128, 129, 300]), width=st.integers(1, 3))
def test_what_is_encoded_is_decoded_however_the_stream_is_cut(data: st.DataObject, rows: int, width: int) -> None:
    dimensions = data.draw(st.integers(1, 4))
    keys = data.draw(arrays.arrays(np.int64, (rows, width), fill=st.integers(-5, 5)))
    embeddings = data.draw(arrays.arrays(np.float32, (rows, dimensions), elements=_FLOATS))
    stream = _stream(keys, embeddings)
    sizes = data.draw(st.lists(st.integers(0, 200), max_size=20))
    blocks = list(decode(_pieces(stream, sizes), width, dimensions, rows=data.draw(st.integers(1, 200))))
    assert sum(len(block) for block, _ in blocks) == rows
    if rows:
        assert np.array_equal(np.concatenate([block for block, _ in blocks]), keys)
        assert np.concatenate([block for _, block in blocks]).tobytes() == embeddings.tobytes()


def test_a_row_is_what_pgvector_itself_writes() -> None:
    keys, embeddings = _random(3, 2560)
    expected = b""
    for (a, b), embedding in zip(keys.tolist(), embeddings, strict=True):
        vector = Vector(embedding).to_binary()
        expected += struct.pack("!hiqiqi", 3, 8, a, 8, b, len(vector)) + vector
    assert _stream(keys, embeddings) == HEADER + expected + TRAILER


def test_the_stream_is_the_servers_own_bit_for_bit(vectors: psycopg.Connection) -> None:
    for rows in (0, 1, 128, 300):
        keys, embeddings = _random(rows, 7)
        vectors.execute("TRUNCATE t")
        for (a, b), embedding in zip(keys.tolist(), embeddings, strict=True):
            # text, by shortest exact digits: nothing of ours is on this way
            text = "[" + ",".join(map(str, embedding)) + "]"
            vectors.execute("INSERT INTO t VALUES (%s, %s, %s::text::vector)", (a, b, text))
        with vectors.cursor().copy("COPY t TO STDOUT (FORMAT BINARY)") as copy:
            assert b"".join(bytes(part) for part in copy) == _stream(keys, embeddings)


def test_the_server_reads_what_was_written_and_decode_reads_it_back(vectors: psycopg.Connection) -> None:
    keys, embeddings = _random(1000, 2560)
    assert copy_rows(vectors, sql.Identifier("t"), ("a", "b", "v"), keys, embeddings) == 1000
    row = vectors.execute("SELECT v::text FROM t WHERE a = %s", (int(keys[130, 0]),)).fetchone()
    assert row is not None
    assert np.array_equal(np.array(row[0].strip("[]").split(","), dtype=np.float32), embeddings[130])
    with vectors.cursor().copy("COPY t TO STDOUT (FORMAT BINARY)") as copy:
        blocks = list(decode(copy, 2, 2560, rows=300))
    assert [len(block) for block, _ in blocks] == [300, 300, 300, 100]
    assert np.array_equal(np.concatenate([block for block, _ in blocks]), keys)
    assert np.array_equal(np.concatenate([block for _, block in blocks]), embeddings)


def test_a_single_key_and_arrays_that_are_not_contiguous_are_taken(vectors: psycopg.Connection) -> None:
    keys, embeddings = _random(300, 6)
    copy_rows(vectors, sql.Identifier("t"), ("a", "v"), keys[::2, 1], embeddings[::2, ::-2])
    rows = vectors.execute("SELECT a, v FROM t").fetchall()
    assert [row[0] for row in rows] == keys[::2, 1].tolist()
    assert np.array_equal(np.array([row[1].to_list() for row in rows]), embeddings[::2, ::-2])


def test_write_embeddings_puts_the_generation_before_the_chunk(vectors: psycopg.Connection) -> None:
    embeddings = _random(2, 3)[1]
    with vectors.cursor().copy("COPY t FROM STDIN (FORMAT BINARY)") as copy:
        write_embeddings(copy, 7, np.array([30, 40]), embeddings)
    assert vectors.execute("SELECT a, b FROM t").fetchall() == [(7, 30), (7, 40)]
    assert generation_keys(7, np.array([30, 40])).tolist() == [[7, 30], [7, 40]]


@given(
    arrays.arrays(
        np.float32, st.tuples(st.integers(0, 5), st.integers(1, 4)), elements=_SPECIAL | _NOT_FINITE | _FLOATS
    )
)
def test_bad_rows_are_those_that_a_plain_loop_finds(embeddings: npt.NDArray[np.float32]) -> None:
    expected = {}
    for row, vector in enumerate(embeddings.tolist()):
        if any(value != value or value in (float("inf"), float("-inf")) for value in vector):
            expected[row] = "not_finite"
        elif any(abs(value) > 65504 for value in vector):
            expected[row] = "out_of_range"
        elif all(abs(value) < 2**-24 for value in vector):
            expected[row] = "zero_vector"
    assert bad_rows(embeddings) == expected


def test_the_bounds_are_those_of_the_servers_half_precision(vectors: psycopg.Connection) -> None:
    reasons = {65504.0: None, 65536.0: "out_of_range", 2.0**-24: None, 2.0**-25: "zero_vector", 0.0: "zero_vector"}
    for value, reason in reasons.items():
        assert bad_rows(np.array([[value, 0]], dtype=np.float32)) == ({} if reason is None else {0: reason})
        try:
            row = vectors.execute("SELECT l2_norm((%s::text::vector)::halfvec)", (f"[{value},0]",)).fetchone()
        except psycopg.errors.NumericValueOutOfRange:
            found = "out_of_range"
        else:
            found = "zero_vector" if row == (0.0,) else None
        assert found == reason


def test_bad_vectors_are_named_by_their_last_key_and_nothing_is_written(vectors: psycopg.Connection) -> None:
    keys, embeddings = np.column_stack((np.full(20, 3), np.arange(100, 120))), _random(20, 5)[1]
    embeddings[2] = 0
    embeddings[4, 1] = np.nan
    embeddings[19, 4] = -1e6
    with pytest.raises(BadVectorError, match=r"3 vectors cannot be stored: 102 \(zero_vector\)") as caught:
        copy_rows(vectors, sql.Identifier("t"), ("a", "b", "v"), keys, embeddings)
    assert caught.value.reasons == {102: "zero_vector", 104: "not_finite", 119: "out_of_range"}
    assert vectors.execute("SELECT count(*) FROM t").fetchone() == (0,)
    with pytest.raises(BadVectorError, match="and 10 more"):
        copy_rows(vectors, sql.Identifier("t"), ("a", "b", "v"), keys, np.zeros((20, 5), np.float32))


def test_no_rows_are_no_rows(vectors: psycopg.Connection) -> None:
    nothing = np.empty((0, 2), np.int64), np.empty((0, 5), np.float32)
    assert copy_rows(vectors, sql.Identifier("t"), ("a", "b", "v"), *nothing) == 0
    assert list(decode([HEADER + TRAILER], 2, 5)) == []


def test_every_stream_that_ends_early_is_refused() -> None:
    keys, embeddings = _random(3, 2, width=1)
    keys[1:] = -1  # 0xff in every byte, as in the trailer
    stream = _stream(keys, embeddings)
    assert sum(len(block) for block, _ in decode([stream], 1, 2)) == 3
    for end in range(len(stream)):
        with pytest.raises(DatabaseError, match=r"ended early|does not hold"):
            list(decode([stream[:end]], 1, 2))


def test_a_stream_of_another_shape_is_refused(vectors: psycopg.Connection) -> None:
    for select in (
        "1::bigint, '[1,2]'::vector", "1::bigint, NULL::vector", "NULL::bigint, '[1,2,3]'::vector", "'[1,2,3]'::vector",
        "1::bigint, 2::bigint, '[1,2,3]'::vector", "1, '[1,2,3]'::vector", "1::bigint, '[1,2,3,4]'::vector",
    ):  # fmt: skip
        statement: Any = f"COPY (SELECT {select} FROM generate_series(1, 64)) TO STDOUT (FORMAT BINARY)"
        with vectors.cursor().copy(statement) as copy:
            stream = b"".join(bytes(part) for part in copy)
        with pytest.raises(DatabaseError, match=r"does not hold 1 bigint columns and a vector\(3\)"):
            list(decode([stream], 1, 3))


def test_rows_that_the_server_does_not_keep_are_noticed(vectors: psycopg.Connection) -> None:
    vectors.execute(
        "CREATE FUNCTION pg_temp.lose() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN IF new.b = 5 THEN RETURN NULL; END IF; RETURN new; END'"
    )
    vectors.execute("CREATE TRIGGER lose BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION pg_temp.lose()")
    keys = generation_keys(1, np.arange(10))
    with pytest.raises(DatabaseError, match="10 rows were sent and the server stored 9"):
        copy_rows(vectors, sql.Identifier("t"), ("a", "b", "v"), keys, _random(10, 3)[1])


def test_the_rows_belong_to_the_callers_transaction(vectors: psycopg.Connection) -> None:
    keys, embeddings = _random(200, 3)
    with vectors.transaction(force_rollback=True):
        copy_rows(vectors, sql.Identifier("t"), ("a", "b", "v"), keys, embeddings)
        assert vectors.execute("SELECT count(*) FROM t").fetchone() == (200,)
    assert vectors.execute("SELECT count(*) FROM t").fetchone() == (0,)
