"""The embedded server under what happens to servers: kills, odd paths, two starters, foreign folders."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pgembed.db.embedded import EmbeddedServer
from pgembed.errors import DatabaseError


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, embedded_server: EmbeddedServer) -> Path:
    # beside the shared server's data: pytest's own folders are closed to the server's user when root runs the tests
    path = embedded_server.data_dir.parent / f"case-{len(list(embedded_server.data_dir.parent.iterdir()))}"
    path.mkdir(mode=0o755)
    return path


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(folder / "data", settings={"fsync": "off"})
    yield server
    server.stop()


def _postmaster(server: EmbeddedServer) -> int:
    return int((server.data_dir / "postmaster.pid").read_text().splitlines()[0])


def test_start_stop_status(server: EmbeddedServer) -> None:
    assert not server.is_running()
    assert not server.stop()
    dsn = server.start()
    assert server.start() == dsn  # a second start finds the first
    assert server.is_running()
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE EXTENSION vector")
    assert server.stop()
    assert not server.is_running()


def test_data_outlives_a_restart(server: EmbeddedServer) -> None:
    with psycopg.connect(server.start(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    server.stop()
    with psycopg.connect(server.start()) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


@pytest.mark.parametrize("victim", ["postmaster", "a backend"])
def test_a_killed_server_is_started_again(server: EmbeddedServer, victim: str) -> None:
    with psycopg.connect(server.start(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        os.kill(_postmaster(server) if victim == "postmaster" else connection.info.backend_pid, signal.SIGKILL)
    with psycopg.connect(server.start()) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


@pytest.mark.parametrize("name", ["with space", "quote'd", "ünïcode", "x" * 120, "comma,colon:"])
def test_odd_paths(folder: Path, name: str) -> None:
    server = EmbeddedServer(folder / name / "data", settings={"fsync": "off"})
    (folder / name).mkdir()
    try:
        with psycopg.connect(server.start()) as connection:
            assert connection.execute("SHOW data_directory").fetchone() == (str(server.data_dir),)
    finally:
        server.stop()


def test_two_starters_get_one_server(server: EmbeddedServer) -> None:
    seen: list[str] = []
    threads = [threading.Thread(target=lambda: seen.append(EmbeddedServer(server.data_dir).start())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 3
    assert len(set(seen)) == 1


def test_the_server_outlives_a_killed_client_and_can_be_stopped(server: EmbeddedServer) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from pgembed.db.embedded import EmbeddedServer;"
        "EmbeddedServer(Path(sys.argv[1])).start(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(server.data_dir)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert server.is_running()
    assert server.stop()


def test_an_interrupted_initdb_is_done_again(server: EmbeddedServer) -> None:
    partial = server.data_dir.with_name(server.data_dir.name + ".partial")
    partial.mkdir()
    (partial / "PG_VERSION").write_text("18\n")
    server.start()
    assert not partial.exists()


def test_a_foreign_folder_is_left_alone(server: EmbeddedServer) -> None:
    server.data_dir.mkdir()
    precious = server.data_dir / "thesis.tex"
    precious.write_text("years of work")
    with pytest.raises(DatabaseError, match="is not a Postgres data folder"):
        server.start()
    assert precious.read_text() == "years of work"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_as_root_a_closed_folder_is_named_and_stays_closed(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(DatabaseError, match=str(closed)):
        EmbeddedServer(closed / "data").start()
    assert closed.stat().st_mode & 0o777 == 0o700
