"""`pgembed db`: the embedded server from the command line, and psql on whichever database is in use."""

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from fixtures_cli import pgembed
from psycopg.conninfo import make_conninfo

from pgembed.db.embedded import EmbeddedServer
from pgembed.db.migrations import revisions

PASSWORD = "hunter2"  # noqa: S105 - of nobody


@pytest.fixture(params=["plain-{}", "with a space {}"])
def home(
    request: pytest.FixtureRequest, embedded_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A PGEMBED_HOME that is not there yet, where the server's user can pass; its server is stopped at the end."""
    folder = embedded_server.data_dir.parent / "homes"
    path = folder / request.param.format(len(list(folder.glob("*"))))
    monkeypatch.setenv("PGEMBED_HOME", str(path))
    yield path
    server = EmbeddedServer(path / "postgres")
    server.stop()
    if server.socket_dir != server.data_dir:  # elsewhere than in the folder of the tests
        shutil.rmtree(server.socket_dir, ignore_errors=True)


def run(*arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    """Run pgembed in a process of its own: what psql prints passes by Python's streams."""
    return subprocess.run(
        [sys.executable, "-m", "pgembed", *arguments], input=stdin, capture_output=True, text=True, check=False
    )


# ---------------------------------------------------------------- start, stop, status


def test_a_server_from_start_to_stop(home: Path) -> None:
    before = pgembed("db", "status")
    assert (before.code, before.stderr) == (1, "")
    assert f"does not run on {home}" in before.stdout
    assert "pgembed db start" in before.stdout
    state = pgembed("db", "status", "--json")
    assert (state.code, json.loads(state.stdout)) == (
        1,
        {"running": False, "data": str(home / "postgres"), "dsn": None},
    )
    assert not home.exists()  # asking makes nothing

    started = run("db", "start")  # by a process that ends
    assert (started.returncode, started.stderr) == (0, "")
    assert str(home / "postgres") in started.stdout
    state = pgembed("db", "status", "--json")
    running = json.loads(state.stdout)
    assert (state.code, running["running"]) == (0, True)
    assert f'PGEMBED_DSN="{running["dsn"]}"' in started.stdout
    assert f'PGEMBED_DSN="{running["dsn"]}"' in pgembed("db", "status").stdout
    again = json.loads(pgembed("db", "start", "--json").stdout)
    assert (again["dsn"], again["data"]) == (running["dsn"], str(home / "postgres"))
    assert "PostgreSQL" in again["version"]

    # what it prints can be used as it is, and it is the default
    assert json.loads(pgembed("migrate", "--json", "--dsn", running["dsn"]).stdout)["revisions"] == revisions()
    assert json.loads(pgembed("migrate", "--json").stdout)["revisions"] == []

    stopped = pgembed("db", "stop")
    assert (stopped.code, stopped.stdout) == (0, "Stopped.\n")
    assert pgembed("db", "status").code == 1
    twice = pgembed("db", "stop")
    assert twice.code == 0
    assert f"No server was running on {home}" in twice.stdout

    # a command that needs the database starts it
    found = run("db", "psql", "-At", "-c", "SELECT version_num FROM pgembed.alembic_version")
    assert (found.returncode, found.stdout, found.stderr) == (0, f"{revisions()[-1]}\n", "")
    assert pgembed("db", "status").code == 0


def test_a_folder_of_something_else_is_refused_with_a_remedy(home: Path) -> None:
    (home / "postgres").mkdir(parents=True)
    (home / "postgres" / "thesis.tex").write_text("years of work")
    outcome = pgembed("db", "start")
    assert (outcome.code, outcome.stdout) == (1, "")
    assert "is not a Postgres data folder" in outcome.stderr
    assert "PGEMBED_HOME" in outcome.stderr
    assert pgembed("db", "stop").code == 0
    assert (home / "postgres" / "thesis.tex").read_text() == "years of work"


# ---------------------------------------------------------------- psql


def test_psql_runs_statements_in_order(database_url: str) -> None:
    done = run("db", "psql", "--dsn", database_url, "-At", "-c", "SELECT 'one'", "--command", "SELECT 'two'")
    assert (done.returncode, done.stdout, done.stderr) == (0, "one\ntwo\n", "")


def test_psql_takes_the_database_from_the_environment(
    database_url: str, conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGEMBED_DSN", database_url)
    assert run("db", "psql", "-At", "-c", "SELECT current_database()").stdout == f"{conn.info.dbname}\n"


def test_psql_reads_a_script_and_passes_its_options(database_url: str) -> None:
    done = run("db", "psql", "--dsn", database_url, "-At", "-v", "answer=42", stdin="SELECT :answer;\n")
    assert (done.returncode, done.stdout) == (0, "42\n")
    after_dashes = run("db", "psql", "--dsn", database_url, "--", "-At", "-c", "SELECT 43")
    assert (after_dashes.returncode, after_dashes.stdout) == (0, "43\n")


@pytest.mark.parametrize(("options", "code"), [(["-c", "SELECT 1/0"], 1), (["-v", "ON_ERROR_STOP=1"], 3)])
def test_the_exit_code_is_psqls_own(database_url: str, options: list[str], code: int) -> None:
    done = run("db", "psql", "--dsn", database_url, *options, stdin="SELECT 1/0;\n")
    assert done.returncode == code
    assert "division by zero" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process list from /proc")
def test_a_password_reaches_psql_and_not_the_process_list(database_url: str) -> None:
    done = run(
        "db", "psql", "--dsn", make_conninfo(database_url, password=PASSWORD), "-At",
        "-c", r"\! tr '\0' ' ' < /proc/$PPID/cmdline", "-c", r"\getenv secret PGPASSWORD", "-c", r"\echo is :secret",
    )  # fmt: skip
    arguments, _, received = done.stdout.rpartition("is ")
    assert "psql" in arguments
    assert PASSWORD not in arguments
    assert received == f"{PASSWORD}\n"


def _until_it_sleeps(conn: psycopg.Connection, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(1000):
        if conn.execute("SELECT FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(300);'").fetchone() is not None:
            return
        assert process.poll() is None, "psql has ended"
        time.sleep(0.02)
    raise AssertionError("psql never came to the statement")


def test_an_interrupt_cancels_the_statement_and_leaves_psql(database_url: str, conn: psycopg.Connection) -> None:
    screen, terminal = pty.openpty()  # psql is interactive on a terminal only
    with subprocess.Popen(
        [sys.executable, "-m", "pgembed", "db", "psql", "--dsn", database_url, "-X"],
        stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
        env={**os.environ, "TERM": "dumb", "PAGER": "cat"},
    ) as process:  # fmt: skip
        os.close(terminal)
        os.write(screen, b"SELECT pg_sleep(300);\n")
        _until_it_sleeps(conn, process)
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does: all that runs in it gets the signal
        os.write(screen, b"SELECT 'still ' || 'here';\n\\q\n")
        shown = b""
        with contextlib.suppress(OSError):  # how Linux ends the reading of a terminal that nobody holds any more
            while block := os.read(screen, 4096):
                shown += block
    os.close(screen)
    assert b"canceling statement due to user request" in shown
    assert b"still here" in shown
    assert b"Interrupted" not in shown
    assert process.returncode == 0
