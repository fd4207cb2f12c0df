"""Reindex under kills, a crashed server and a full disk: run again, and each live chunk has its one right vector.

In CI a few moments each; the long run is

    PGEMBED_TEST_KILLS=30 python -m pytest tests/integration/vectors/test_faults.py
"""

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest
from fixtures_vectors import add_code, numbered_texts, stored_vectors

from pgembed.db.connection import connect
from pgembed.db.embedded import EmbeddedServer
from pgembed.db.migrations import upgrade
from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.vectors.generations import get_generation
from pgembed.vectors.reindex import reindex

KILLS = int(os.environ.get("PGEMBED_TEST_KILLS", "4"))
CHUNKS = 1200

WORKER = """
import sys
from pathlib import Path
from pgembed.vectors import filling
filling.RANGE = 128
from pgembed.vectors.reindex import reindex
result = reindex(sys.argv[1], Path(sys.argv[2]), batch=8)
print(result.state)
"""


def _worker(dsn: str, artefact: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WORKER, dsn, str(artefact)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _assert_as_a_straight_run(conn: psycopg.Connection, artefact: Path) -> None:
    """One row for each live chunk, each the vector of a straight run; no orphan table, index or lock."""
    contents = dict(conn.execute("SELECT id, content FROM pgembed.code_chunks ORDER BY id").fetchall())
    found = stored_vectors(conn, 1)
    assert found.keys() == contents.keys()
    straight = OnnxEncoder.load(artefact, threads=1).embed(list(contents.values()), role="passage")
    assert np.abs(np.array([found[chunk_id] for chunk_id in contents]) - straight).max() < 1e-5
    names = conn.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'pgembed'::regnamespace AND relname ~ '^code_embeddings_'"
        " AND relkind IN ('r', 'i') ORDER BY relname"
    ).fetchall()
    assert [name for (name,) in names] == [
        "code_embeddings_1", "code_embeddings_1_embedding_idx", "code_embeddings_1_pkey"
    ]  # fmt: skip
    assert conn.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid").fetchone() == (0,)
    assert conn.execute("SELECT count(*) FROM pgembed.generations").fetchone() == (1,)


@pytest.mark.timeout(60 + 30 * KILLS)
def test_killed_at_random_moments_while_chunks_come_and_go(
    conn: psycopg.Connection, database_url: str, tiny_encoder: Path
) -> None:
    luck = random.Random(20261125)  # noqa: S311 - chance, not secrecy
    ids = add_code(conn, numbered_texts(CHUNKS))
    for kill in range(KILLS):
        worker = _worker(database_url, tiny_encoder)
        # from before the first row to the building of the index
        time.sleep(luck.uniform(0.8, 3.5))
        ids += add_code(conn, numbered_texts(5, start=CHUNKS + 5 * kill))
        conn.execute("DELETE FROM pgembed.code_chunks WHERE id = ANY (%s)", (luck.sample(ids, 3),))
        with contextlib.suppress(ProcessLookupError):
            worker.send_signal(signal.SIGKILL)
        worker.communicate()
    result = reindex(database_url, tiny_encoder)
    assert result.state == "ready"
    _assert_as_a_straight_run(conn, tiny_encoder)


@pytest.fixture
def server(embedded_server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """A server of the test's own, that may come to harm; it syncs, for what a crash loses is the question."""
    folder = embedded_server.data_dir.parent / f"fault-{len(list(embedded_server.data_dir.parent.iterdir()))}"
    folder.mkdir(mode=0o755)
    server = EmbeddedServer(folder / "data")
    yield server
    server.stop()


def test_the_server_is_killed_in_the_middle(server: EmbeddedServer, tiny_encoder: Path) -> None:
    dsn = server.start()
    upgrade(dsn)
    with connect(dsn, vectors=True) as conn:
        add_code(conn, numbered_texts(CHUNKS))
    worker = _worker(dsn, tiny_encoder)
    with connect(dsn, vectors=True) as conn:
        while conn.execute("SELECT to_regclass('pgembed.code_embeddings_1')").fetchone() == (None,):
            time.sleep(0.02)
        while conn.execute("SELECT count(*) < 100 FROM pgembed.code_embeddings_1").fetchone() == (True,):
            time.sleep(0.02)
    postmaster = int((server.data_dir / "postmaster.pid").read_text().splitlines()[0])
    os.kill(postmaster, signal.SIGKILL)
    _, told = worker.communicate(timeout=60)
    assert worker.returncode == 1, told
    assert "OperationalError" in told or "AdminShutdown" in told
    dsn = server.start()
    with connect(dsn, vectors=True) as conn:
        kept = len(stored_vectors(conn, 1))
        assert 96 <= kept < CHUNKS  # what was committed outlived the crash
        result = reindex(dsn, tiny_encoder)
        assert (result.kind, result.state, result.embedded) == ("resumed", "ready", CHUNKS - kept)
        _assert_as_a_straight_run(conn, tiny_encoder)


def test_the_servers_disk_is_full(server: EmbeddedServer, tiny_encoder: Path) -> None:
    """A limit on the size of the server's files stands for the disk: 17 MB are some 1,400 vectors."""
    chunks = 2000
    dsn = server.start()
    upgrade(dsn)
    with connect(dsn, vectors=True) as conn:
        add_code(conn, numbered_texts(chunks))
        conn.execute("CHECKPOINT")
    server.stop()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (17 << 20, limits[1]))  # a WAL segment has 16 MB and must fit
    try:
        dsn = server.start()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    worker = _worker(dsn, tiny_encoder)
    _, told = worker.communicate(timeout=120)
    assert worker.returncode == 1, told
    assert "could not" in told, told
    with connect(dsn, vectors=True) as conn:
        kept = len(stored_vectors(conn, 1))
        assert 0 < kept < chunks
        assert get_generation(conn, 1).state == "filling"
        assert get_generation(conn, 1).error
    server.stop()
    dsn = server.start()  # with room again
    with connect(dsn, vectors=True) as conn:
        result = reindex(dsn, tiny_encoder)
        assert (result.kind, result.state, result.embedded) == ("resumed", "ready", chunks - kept)
        _assert_as_a_straight_run(conn, tiny_encoder)
