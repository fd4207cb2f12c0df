"""`reindex --watch` embeds what is ingested while it runs; `--index-only` builds the index anew and embeds nothing."""

import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fixtures_cli import pgembed
from fixtures_vectors import MadeUpEncoder, add_code, assert_complete, numbered_texts, rows_so_far, stored_vectors

from pgembed.errors import DatabaseError, GenerationError
from pgembed.vectors.generations import get_generation
from pgembed.vectors.reindex import index_anew, reindex_with
from pgembed.vectors.watching import watch


def test_an_insert_is_heard_once_it_is_committed(conn: psycopg.Connection, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute("LISTEN pgembed_chunks")
        with conn.transaction():
            add_code(conn, numbered_texts(3))
            assert list(listener.notifies(timeout=0.2)) == []
        assert len(list(listener.notifies(timeout=5, stop_after=1))) == 1


def test_it_embeds_what_comes_and_outlives_a_lost_connection(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    results: list[Any] = []
    said: list[str] = []

    class Said:
        def task(self, *arguments: Any) -> Any:
            from pgembed.progress import SILENT

            return SILENT.task(*arguments)

        def say(self, text: str) -> None:
            said.append(text)

    def follow() -> None:
        run = partial(reindex_with, database_url, encoder, batch=8)
        for result in watch(database_url, run, progress=Said(), look_s=30):
            results.append(result)
            if result.rows == 60:
                return

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    _until(lambda: said == ["There are no chunks yet; waiting for some."])
    add_code(conn, numbered_texts(20))
    _until(lambda: bool(results) and results[-1].rows == 20)
    conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    _until(lambda: any("The connection is lost" in line for line in said))
    add_code(conn, numbered_texts(40, start=20))
    follower.join(30)
    assert not follower.is_alive()
    assert sum(result.embedded for result in results) == 60
    assert_complete(conn, 1, encoder)


def test_without_a_server_it_says_so_at_once(encoder: MadeUpEncoder) -> None:
    nowhere = "host=/nonexistent dbname=nothing"
    with pytest.raises(DatabaseError, match="Cannot connect"):
        next(watch(nowhere, partial(reindex_with, nowhere, encoder)))


def test_the_command_follows_an_ingest_and_ends_by_ctrl_c(
    conn: psycopg.Connection, database_url: str, tiny_encoder: Path, tmp_path: Path
) -> None:
    add_code(conn, numbered_texts(10))
    command = [sys.executable, "-m", "pgembed", "reindex", "--watch", "--artefact", str(tiny_encoder)]
    process = subprocess.Popen([*command, "--dsn", database_url], stdout=subprocess.PIPE, text=True)
    try:
        _until(lambda: rows_so_far(conn) == 10)
        (tmp_path / "new.py").write_text("def new(values):\n    return sorted(values)\n")
        assert pgembed("ingest", str(tmp_path), "--dsn", database_url).code == 0
        _until(lambda: rows_so_far(conn) > 10)
    finally:
        process.send_signal(signal.SIGINT)
    try:
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert out.count("Generation 1:") >= 1
    assert pgembed("reindex", "--watch", "--fresh", "--dsn", database_url).code == 2


def test_index_only_builds_the_index_anew_and_embeds_nothing(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    add_code(conn, numbered_texts(300))
    with pytest.raises(GenerationError, match="no finished generation"):
        index_anew(database_url, encoder)
    reindex_with(database_url, encoder, activate=True)
    asked = len(encoder.asked)
    before = conn.execute(
        "SELECT relfilenode FROM pg_class WHERE relname = 'code_embeddings_1_embedding_idx'"
    ).fetchone()
    add_code(conn, numbered_texts(50, start=300))
    result = index_anew(database_url, encoder)
    assert (result.kind, result.embedded, result.rows, result.state) == ("index", 0, 300, "active")
    assert len(encoder.asked) == asked
    after = conn.execute(
        "SELECT relfilenode FROM pg_class WHERE relname = 'code_embeddings_1_embedding_idx'"
    ).fetchone()
    assert after != before
    assert get_generation(conn, 1).metrics["indexed_rows"] == 300
    assert len(stored_vectors(conn, 1)) == 300


def _until(happens: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
