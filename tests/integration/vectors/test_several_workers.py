"""Several workers on one generation: no chunk twice, none forgotten, and a dead one's part is taken over."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from fixtures_vectors import MadeUpEncoder, add_code, assert_complete, numbered_texts, rows_so_far, stored_vectors

from pgembed.db.connection import connect
from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.errors import GenerationError
from pgembed.vectors import filling
from pgembed.vectors.filling import BrokenEncoderError
from pgembed.vectors.generations import get_generation, prune
from pgembed.vectors.reindex import reindex, reindex_with


def _together(url: str, encoders: list[MadeUpEncoder], **options: Any) -> list[Any]:
    results: list[Any] = []

    def run(encoder: MadeUpEncoder) -> None:
        try:
            results.append(reindex_with(url, encoder, **options))
        except GenerationError as error:
            results.append(error)

    threads = [threading.Thread(target=run, args=(encoder,)) for encoder in encoders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges of sixteen ids, so that a test has many."""
    monkeypatch.setattr(filling, "RANGE", 16)


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize("count", [2, 4])
def test_they_share_the_work_and_no_chunk_is_embedded_twice(
    conn: psycopg.Connection, database_url: str, tmp_path: Path, count: int
) -> None:
    add_code(conn, numbered_texts(400))
    encoders = [MadeUpEncoder(tmp_path) for _ in range(count)]
    for encoder in encoders:
        encoder.during = lambda: time.sleep(0.02)
    results = _together(database_url, encoders, batch=8, activate=True)
    assert {(result.generation_id, result.rows, result.state) for result in results} == {(1, 400, "active")}
    assert all(encoder.asked for encoder in encoders)
    assert sorted(text for encoder in encoders for text in encoder.asked) == sorted(numbered_texts(400))
    assert sum(result.embedded for result in results) == 400
    assert_complete(conn, 1, encoders[0])
    assert conn.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)


def test_fewer_chunks_than_a_range_are_one_workers(conn: psycopg.Connection, database_url: str, tmp_path: Path) -> None:
    add_code(conn, numbered_texts(40))
    encoders = [MadeUpEncoder(tmp_path) for _ in range(3)]
    results = _together(database_url, encoders, batch=8)
    assert {(result.generation_id, result.rows, result.state) for result in results} == {(1, 40, "ready")}
    assert sorted(len(encoder.asked) for encoder in encoders) == [0, 0, 40]


@pytest.mark.usefixtures("small_ranges")
def test_chunks_that_come_and_go_meanwhile(conn: psycopg.Connection, database_url: str, tmp_path: Path) -> None:
    ids = add_code(conn, numbered_texts(200))
    encoders = [MadeUpEncoder(tmp_path) for _ in range(2)]
    changed = threading.Event()

    def change() -> None:
        if not changed.is_set():
            changed.set()
            with connect(database_url, access="session") as own:
                add_code(own, numbered_texts(30, start=1000))
                own.execute("DELETE FROM pgembed.code_chunks WHERE id = ANY (%s)", (ids[50:120:3],))

    for encoder in encoders:
        encoder.during = change
    results = _together(database_url, encoders, batch=8)
    assert {result.state for result in results} == {"ready"}
    assert_complete(conn, 1, encoders[0])


@pytest.mark.usefixtures("small_ranges")
def test_what_one_cannot_embed_the_other_does_not_try_for_ever(
    conn: psycopg.Connection, database_url: str, tmp_path: Path
) -> None:
    ids = add_code(conn, [*numbered_texts(60), "bad apple", *numbered_texts(60, start=60)])
    encoders = [MadeUpEncoder(tmp_path) for _ in range(2)]
    for encoder in encoders:
        encoder.bad = {"bad": float("nan")}
        encoder.during = lambda: time.sleep(0.01)
    results = _together(database_url, encoders, batch=4)
    assert {(result.rows, result.rejected, result.state) for result in results} == {(120, 1, "ready")}
    assert_complete(conn, 1, encoders[0], without=[ids[60]])


@pytest.mark.usefixtures("small_ranges")
def test_a_broken_encoder_ends_all_of_them(
    conn: psycopg.Connection, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "_MAXIMUM_REJECTED", 20)
    add_code(conn, [f"bad {n}" for n in range(300)])
    encoders = [MadeUpEncoder(tmp_path) for _ in range(2)]
    for encoder in encoders:
        encoder.bad = {"bad": 0.0}
        encoder.during = lambda: time.sleep(0.01)
    results = _together(database_url, encoders, batch=4)
    assert all(isinstance(result, GenerationError) for result in results)
    assert any(isinstance(result, BrokenEncoderError) for result in results)
    assert get_generation(conn, 1).state == "failed"


@pytest.mark.usefixtures("small_ranges")
def test_a_generation_is_not_dropped_under_its_workers(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    add_code(conn, numbered_texts(40))
    told: list[str] = []

    def try_to_drop() -> None:
        with connect(database_url, access="session") as own, pytest.raises(GenerationError) as caught:
            prune(own, ids=[1])
        told.append(str(caught.value))

    encoder.during = try_to_drop
    assert reindex_with(database_url, encoder, batch=20).rows == 40
    assert f"Another reindex is at work with this encoder: pgembed[{os.getpid()}] on this machine" in told[0]


WORKER = """
import sys
from pathlib import Path
from pgembed.vectors import filling
filling.RANGE = 32
from pgembed.vectors.reindex import reindex
reindex(sys.argv[1], Path(sys.argv[2]), batch=4)
"""


def test_of_three_processes_two_are_killed_and_the_third_does_their_part(
    conn: psycopg.Connection, database_url: str, tiny_encoder: Path
) -> None:
    add_code(conn, numbered_texts(900))
    start = [sys.executable, "-c", WORKER, database_url, str(tiny_encoder)]
    workers = [subprocess.Popen(start, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    luck = random.Random(20261125)  # noqa: S311 - chance, not secrecy
    for victim in workers[:2]:
        before = rows_so_far(conn)
        while rows_so_far(conn) <= before + 40 and victim.poll() is None:
            time.sleep(0.01)
        time.sleep(luck.random() * 0.1)
        with contextlib.suppress(ProcessLookupError):
            victim.send_signal(signal.SIGKILL)
    _, told = workers[2].communicate(timeout=120)
    assert workers[2].returncode == 0, told
    for victim in workers[:2]:
        victim.communicate()
    result = reindex(database_url, tiny_encoder)
    assert (result.embedded, result.rows, result.state) == (0, 900, "ready")
    contents = dict(conn.execute("SELECT id, content FROM pgembed.code_chunks ORDER BY id").fetchall())
    found = stored_vectors(conn, 1)
    assert found.keys() == contents.keys()
    straight = OnnxEncoder.load(tiny_encoder, threads=1).embed(list(contents.values()), role="passage")
    assert np.abs(np.array([found[chunk_id] for chunk_id in contents]) - straight).max() < 1e-5
