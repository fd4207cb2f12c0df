"""Reindex: one row for each live chunk, whatever happens to chunks, encoder and process meanwhile."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from fixtures_vectors import MadeUpEncoder, add_code, assert_complete, numbered_texts, stored_vectors

from pgembed.db.connection import connect
from pgembed.db.migrations import upgrade
from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.errors import GenerationError
from pgembed.vectors.filling import BrokenEncoderError
from pgembed.vectors.generations import active_id, get_generation
from pgembed.vectors.index import METHODS
from pgembed.vectors.reindex import reindex, reindex_with
from pgembed.vectors.search import search


def _rejected(conn: psycopg.Connection) -> dict[int, str]:
    rows = conn.execute("SELECT chunk_id, reason FROM pgembed.rejected_items WHERE stage = 'reindex'")
    return dict(rows.fetchall())


def _delete(conn: psycopg.Connection, ids: Iterable[int]) -> None:
    conn.execute("DELETE FROM pgembed.code_chunks WHERE id = ANY (%s)", (list(ids),))


@pytest.mark.parametrize("batch", [1, 7, 512])
def test_every_chunk_gets_its_own_vector_once(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder, batch: int
) -> None:
    add_code(conn, numbered_texts(50))
    result = reindex_with(database_url, encoder, batch=batch)
    assert (result.kind, result.state, result.rows, result.embedded, result.rejected) == ("new", "ready", 50, 50, 0)
    assert_complete(conn, result.generation_id, encoder)
    assert sorted(encoder.asked) == sorted(numbered_texts(50))
    again = reindex_with(database_url, encoder, batch=batch)
    assert (again.generation_id, again.kind, again.embedded) == (result.generation_id, "incremental", 0)
    assert len(encoder.asked) == 50
    assert active_id(conn) is None


def test_pgvector_may_stand_in_any_schema(empty_database_url: str, encoder: MadeUpEncoder) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as admin:
        admin.execute('CREATE SCHEMA "Odd Extensions"')
        admin.execute('CREATE EXTENSION vector SCHEMA "Odd Extensions"')
    upgrade(empty_database_url)
    with connect(empty_database_url, vectors=True) as conn:
        add_code(conn, numbered_texts(20))
        result = reindex_with(empty_database_url, encoder, activate=True)
        assert (result.state, result.rows) == ("active", 20)
        assert search(conn, encoder, numbered_texts(1)[0], k=1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 3, 60])
def test_the_smallest_tables_are_indexed_and_calibrated_too(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder, method: str, count: int
) -> None:
    add_code(conn, numbered_texts(count))
    result = reindex_with(database_url, encoder, index_method=method, activate=True)
    assert (result.state, result.rows, result.lists) == ("active", count, 1)
    assert result.index_recall is not None
    assert result.index_recall >= 0.95
    assert len(search(conn, encoder, "topic1 x")) == min(count, 10)


KILLED = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from pgembed.vectors.reindex import reindex

class Killer:
    def say(self, text):
        if text.startswith(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
    @contextmanager
    def task(self, description, total, unit):
        self.description, self.done = description, 0
        yield self
    def note(self, text): pass
    def advance(self, amount=1):
        self.done += amount
        if self.description == sys.argv[3] and self.done >= 80:
            os.kill(os.getpid(), signal.SIGKILL)

reindex(sys.argv[1], Path(sys.argv[2]), batch=16, progress=Killer())
"""


@pytest.mark.parametrize("moment", ["Embedding", "Building", "Calibrating"])
def test_killed_at_any_moment_and_run_again_ends_with_one_row_for_each_live_chunk(
    conn: psycopg.Connection, database_url: str, tiny_encoder: Path, moment: str
) -> None:
    ids = add_code(conn, numbered_texts(150))
    run = subprocess.run(
        [sys.executable, "-c", KILLED, database_url, str(tiny_encoder), moment],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == -signal.SIGKILL, run.stderr
    before = len(stored_vectors(conn, 1))
    assert 32 <= before < 80 if moment == "Embedding" else before == 150
    assert get_generation(conn, 1).state == ("filling" if moment == "Embedding" else "indexing")
    add_code(conn, numbered_texts(5, start=150))
    _delete(conn, [ids[0], ids[149]])
    result = reindex(database_url, tiny_encoder, batch=16)
    assert (result.generation_id, result.kind, result.state, result.rows) == (1, "resumed", "ready", 153)
    # what was committed is kept, and nothing is done twice
    assert result.embedded == 153 - before + (1 if moment == "Embedding" else 2)
    contents = dict(conn.execute("SELECT id, content FROM pgembed.code_chunks ORDER BY id").fetchall())
    found = stored_vectors(conn, 1)
    assert found.keys() == contents.keys()
    straight = OnnxEncoder.load(tiny_encoder, threads=1).embed(list(contents.values()), role="passage")
    assert np.abs(np.array([found[chunk_id] for chunk_id in contents]) - straight).max() < 1e-5
    assert conn.execute("SELECT count(*) FROM pgembed.code_embeddings").fetchone() == (153,)


def test_interrupted_by_the_keyboard_it_says_so_keeps_what_it_has_and_goes_on(
    conn: psycopg.Connection, database_url: str, tiny_encoder: Path
) -> None:
    add_code(conn, numbered_texts(3000))
    command = [sys.executable, "-m", "pgembed", "reindex", "--artefact", str(tiny_encoder), "--dsn", database_url]
    process = subprocess.Popen([*command, "--batch", "4"], stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        table = conn.execute("SELECT to_regclass('pgembed.code_embeddings_1')").fetchone()
        if table != (None,) and stored_vectors(conn, 1):
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.01)
    _, told = process.communicate()
    assert process.returncode == 130, told
    assert "run the same command again" in told
    assert "Traceback" not in told
    before = len(stored_vectors(conn, 1))
    assert 0 < before < 3000
    generation = get_generation(conn, 1)
    assert (generation.state, generation.error) == ("filling", "KeyboardInterrupt")
    result = reindex(database_url, tiny_encoder)
    assert (result.kind, result.embedded, result.rows) == ("resumed", 3000 - before, 3000)
    assert get_generation(conn, 1).error is None


def test_chunks_that_arrive_while_it_runs_are_embedded_too(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    add_code(conn, numbered_texts(30))
    arriving = iter(range(100, 103))

    def arrive() -> None:
        for n in arriving:
            add_code(conn, [f"late code {n}"])
            return

    encoder.during = arrive
    result = reindex_with(database_url, encoder, batch=10)
    assert (result.rows, result.embedded) == (33, 33)
    assert_complete(conn, result.generation_id, encoder)


def test_a_run_ends_though_chunks_arrive_without_end_and_the_next_one_takes_the_rest(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    add_code(conn, numbered_texts(10))

    def arrive() -> None:
        add_code(conn, [f"late code {len(encoder.asked)}"])

    encoder.during = arrive
    result = reindex_with(database_url, encoder, batch=10)
    assert result.state == "ready"
    encoder.during = None
    last = reindex_with(database_url, encoder, activate=True)
    assert (last.embedded, last.state) == (1, "active")
    assert_complete(conn, last.generation_id, encoder)


@pytest.mark.parametrize("batch", [5, 10])
def test_chunks_that_are_deleted_while_it_runs_leave_no_vector(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder, batch: int
) -> None:
    ids = add_code(conn, numbered_texts(40))
    doomed = iter([
        [ids[3], ids[25]],  # being embedded, and not read yet
        [*ids[batch : 2 * batch]],  # all of the batch that is being embedded
        [ids[0]],  # written already
    ])  # fmt: skip
    encoder.during = lambda: _delete(conn, next(doomed, []))
    result = reindex_with(database_url, encoder, batch=batch)
    gone = {ids[3], ids[25], ids[0], *ids[batch : 2 * batch]}
    assert_complete(conn, result.generation_id, encoder)
    assert result.rows == 40 - len(gone)
    _delete(conn, ids[30:])  # afterwards too
    assert_complete(conn, result.generation_id, encoder)


@pytest.mark.parametrize("outcome", ["COMMIT", "ROLLBACK"])
def test_a_chunk_that_another_session_is_deleting_is_neither_waited_for_nor_lost(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder, outcome: str
) -> None:
    ids = add_code(conn, numbered_texts(40))
    batches = iter(range(100))
    with connect(database_url, access="session") as other:

        def during() -> None:
            match next(batches):
                case 0:
                    other.execute("BEGIN")
                    _delete(other, [ids[2]])
                case 3:
                    other.execute(outcome)  # type: ignore[call-overload]

        encoder.during = during
        result = reindex_with(database_url, encoder, batch=10)
    assert result.rows == (39 if outcome == "COMMIT" else 40)
    assert_complete(conn, result.generation_id, encoder)


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_unusable_vectors_are_rejected_with_their_reason_and_the_rest_goes_on(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder, batch: int
) -> None:
    ids = add_code(
        conn, [*numbered_texts(20), "a nan", "an inf", "a minus", "a zero", "a huge", *numbered_texts(5, start=20)]
    )
    encoder.bad = {"nan": np.nan, "inf": np.inf, "minus": -np.inf, "zero": 0.0, "huge": 1e6}
    # the queries of the calibration are made of chunks, so that some of them get no vector either
    result = reindex_with(database_url, encoder, batch=batch, activate=True)
    assert (result.state, result.rows, result.rejected) == ("active", 25, 5)
    reasons = ["not_finite", "not_finite", "not_finite", "zero_vector", "out_of_range"]
    assert _rejected(conn) == dict(zip(ids[20:25], reasons, strict=True))
    assert_complete(conn, result.generation_id, encoder, without=ids[20:25])
    # they are not asked for again, nor do they count as missing
    asked = len(encoder.asked)
    assert reindex_with(database_url, encoder).embedded == 0
    assert len(encoder.asked) == asked
    _delete(conn, [ids[20]])
    assert len(_rejected(conn)) == 4


@pytest.mark.parametrize("count", [5, 150])
def test_a_wholly_broken_encoder_fails_the_generation_and_the_next_run_starts_anew(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder, count: int
) -> None:
    add_code(conn, numbered_texts(count))
    encoder.bad = {"code": np.nan}
    with pytest.raises(BrokenEncoderError, match=r"no usable vector|unusable vectors"):
        reindex_with(database_url, encoder, batch=10)
    generation = get_generation(conn, 1)
    assert (generation.state, generation.attached) == ("failed", False)
    assert generation.error is not None
    assert "BrokenEncoderError" in generation.error
    assert min(count, 101) <= len(_rejected(conn)) <= count
    assert set(_rejected(conn).values()) == {"not_finite"}
    encoder.bad = {}
    result = reindex_with(database_url, encoder)
    assert (result.generation_id, result.kind, result.state, result.rows) == (2, "new", "ready", count)


def test_an_encoder_that_breaks_later_leaves_the_active_generation_active(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    add_code(conn, numbered_texts(20))
    reindex_with(database_url, encoder, activate=True)
    add_code(conn, [f"new thing {n}" for n in range(150)])
    encoder.bad = {"thing": 0.0}
    with pytest.raises(BrokenEncoderError, match="unusable vectors"):
        reindex_with(database_url, encoder, batch=10)
    generation = get_generation(conn, 1)
    assert generation.state == "active"
    assert generation.error is not None
    assert "BrokenEncoderError" in generation.error
    assert len(search(conn, encoder, "topic1 x", k=100)) == 20


def test_an_error_of_the_encoder_is_noted_and_the_next_run_goes_on(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    add_code(conn, numbered_texts(20))

    def fail() -> None:
        if len(encoder.asked) == 10:
            raise MemoryError("no room")

    encoder.during = fail
    with pytest.raises(MemoryError):
        reindex_with(database_url, encoder, batch=5)
    generation = get_generation(conn, 1)
    assert (generation.state, generation.error) == ("filling", "MemoryError: no room")
    encoder.during = None
    result = reindex_with(database_url, encoder, batch=5)
    assert (result.kind, result.rows) == ("resumed", 20)
    assert get_generation(conn, 1).error is None
    assert_complete(conn, 1, encoder)


def test_a_connection_that_is_cut_ends_the_run_and_the_next_one_goes_on(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    add_code(conn, numbered_texts(40))

    def cut() -> None:
        if len(encoder.asked) == 20:
            conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'pgembed%'"
            )

    encoder.during = cut
    with pytest.raises(psycopg.OperationalError):
        reindex_with(database_url, encoder, batch=5)
    encoder.during = None
    assert reindex_with(database_url, encoder).kind == "resumed"
    assert_complete(conn, 1, encoder)


def test_only_new_chunks_are_embedded_and_deleted_ones_are_gone(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    ids = add_code(conn, numbered_texts(50))
    reindex_with(database_url, encoder, activate=True)
    encoder.asked.clear()
    _delete(conn, ids[:10])
    (new,) = add_code(conn, ["brand new"])
    result = reindex_with(database_url, encoder)
    assert (result.kind, result.state, result.embedded, result.rows) == ("incremental", "active", 1, 41)
    assert encoder.asked == ["brand new"]
    assert search(conn, encoder, "brand new", k=1)[0].chunk_id == new
    assert_complete(conn, result.generation_id, encoder)


def test_an_index_that_has_outgrown_its_lists_is_built_anew_with_the_memory_that_it_needs(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    conn.execute(f"ALTER DATABASE {conn.info.dbname} SET maintenance_work_mem = '1MB'")  # type: ignore[arg-type]
    add_code(conn, numbered_texts(600))
    first = reindex_with(database_url, encoder, activate=True)
    assert (first.lists, first.probes) == (1, 1)
    add_code(conn, numbered_texts(600, start=600))
    second = reindex_with(database_url, encoder)
    assert (second.lists, second.state, second.rows) == (35, "active", 1200)
    options = conn.execute(
        "SELECT c.reloptions, i.indisvalid, EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid)"
        "  FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid WHERE c.relname = 'code_embeddings_1_embedding_idx'"
    ).fetchall()
    assert options == [(["lists=35"], True, True)]
    assert conn.execute("SELECT relname FROM pg_class WHERE relname LIKE '%\\_ccnew%'").fetchall() == []


def test_a_second_encoder_makes_a_second_generation_and_searches_stay_with_the_first_until_activation(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    add_code(conn, numbered_texts(50))
    first = reindex_with(database_url, encoder, activate=True)
    before = search(conn, encoder, "topic1 x")
    other = MadeUpEncoder(encoder.manifest.path.parent, "other")
    other.during = lambda: _assert_equal_hits(conn, encoder, before)
    second = reindex_with(database_url, other, batch=20)
    assert (second.kind, second.state) == ("new", "ready")
    assert second.generation_id != first.generation_id
    assert active_id(conn) == first.generation_id
    _assert_equal_hits(conn, encoder, before)
    assert_complete(conn, first.generation_id, encoder)
    assert_complete(conn, second.generation_id, other)
    assert reindex_with(database_url, other, activate=True).state == "active"
    assert active_id(conn) == second.generation_id


def _assert_equal_hits(conn: psycopg.Connection, encoder: MadeUpEncoder, before: list[Any]) -> None:
    assert search(conn, encoder, "topic1 x") == before


def test_fresh_starts_another_generation_and_killed_it_goes_on_with_that_one(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    add_code(conn, numbered_texts(20))
    reindex_with(database_url, encoder, activate=True)

    def fail() -> None:
        if len(encoder.asked) >= 30:
            raise KeyboardInterrupt

    encoder.during = fail
    with pytest.raises(KeyboardInterrupt):
        reindex_with(database_url, encoder, batch=5, fresh=True, index_method="hnsw")
    assert (get_generation(conn, 2).state, active_id(conn)) == ("filling", 1)
    encoder.during = None
    result = reindex_with(database_url, encoder, batch=5, fresh=True, index_method="hnsw")
    assert (result.generation_id, result.kind, result.state) == (2, "resumed", "ready")
    assert reindex_with(database_url, encoder, fresh=True).generation_id == 3
    assert active_id(conn) == 1


def test_an_existing_generation_keeps_its_index_method(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    add_code(conn, numbered_texts(20))
    reindex_with(database_url, encoder)
    with pytest.raises(GenerationError, match="index method ivfflat, not hnsw") as caught:
        reindex_with(database_url, encoder, index_method="hnsw")
    assert "--fresh --index hnsw" in str(caught.value)
    assert get_generation(conn, 1).state == "ready"


def test_nothing_to_embed_and_senseless_options_are_refused(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    with pytest.raises(GenerationError, match="no chunks to embed"):
        reindex_with(database_url, encoder)
    assert conn.execute("SELECT count(*) FROM pgembed.generations").fetchone() == (0,)
    for options in ({"batch": 0}, {"target_recall": 0.0}, {"target_recall": 1.5}, {"index_method": "gin"}):
        with pytest.raises(GenerationError):
            reindex_with(database_url, encoder, **options)  # type: ignore[arg-type]


def test_a_generation_that_lost_all_its_chunks_before_calibration_goes_on_when_new_ones_come(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    add_code(conn, numbered_texts(20))
    reindex_with(database_url, encoder)
    # as a run leaves it that is killed before it has calibrated
    conn.execute("UPDATE pgembed.generations SET state = 'indexing', probes = NULL, index_recall = NULL")
    conn.execute("DELETE FROM pgembed.code_chunks")
    with pytest.raises(GenerationError, match="No chunk has a vector"):
        reindex_with(database_url, encoder)
    add_code(conn, numbered_texts(30, start=50))
    result = reindex_with(database_url, encoder, activate=True)
    assert (result.generation_id, result.state, result.rows, result.index_recall) == (1, "active", 30, 1.0)
