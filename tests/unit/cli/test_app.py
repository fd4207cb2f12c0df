"""What a person gets from the command `pgembed` itself: help everywhere, exit codes, and remedies, not tracebacks."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
from fixtures_cli import pgembed
from psycopg.conninfo import make_conninfo
from typer.testing import CliRunner

from pgembed import __version__
from pgembed.cli import app as module
from pgembed.cli.app import app
from pgembed.db.migrations import _LOCK_KEY, revisions, upgrade


def _paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from _paths(child, (*path, name))


PATHS = list(_paths(typer.main.get_command(app)))
GROUPS = {path[:n] for path in PATHS for n in range(len(path))}


# ---------------------------------------------------------------- help and wrong usage


def test_the_walk_finds_commands_and_subcommands() -> None:
    assert {(), ("migrate",), ("db", "psql"), ("generations", "rollback"), ("search",)} <= set(PATHS)


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_is_there_and_has_an_example(path: tuple[str, ...]) -> None:
    outcome = CliRunner().invoke(app, [*path, "--help"])
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stderr == ""
    if path not in GROUPS:
        _, example, after = outcome.stdout.partition("Example")
        assert example, "no example"
        assert f"pgembed {' '.join(path)}" in after


# psql is left out: what that command does not know, it hands on
@pytest.mark.parametrize("path", [path for path in PATHS if path != ("db", "psql")], ids=" ".join)
def test_an_unknown_option_is_wrong_usage(path: tuple[str, ...]) -> None:
    outcome = pgembed(*path, "--frobnicate")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "--frobnicate" in outcome.stderr


@pytest.mark.parametrize("path", sorted(GROUPS), ids=" ".join)
def test_an_unknown_command_is_wrong_usage(path: tuple[str, ...]) -> None:
    outcome = pgembed(*path, "frobnicate")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "frobnicate" in outcome.stderr


def test_version() -> None:
    assert pgembed("--version").stdout == f"pgembed {__version__}\n"


# ---------------------------------------------------------------- errors of our own


def test_an_error_is_on_standard_error_with_its_remedy(empty_database_url: str) -> None:
    outcome = pgembed("status", "--dsn", empty_database_url)
    assert (outcome.code, outcome.stdout) == (1, "")
    assert outcome.stderr == "Error: The database has no schema pgembed yet.\n  Run `pgembed migrate`.\n"


def test_json_is_never_half_printed(empty_database_url: str) -> None:
    outcome = pgembed("status", "--json", "--dsn", empty_database_url)
    assert (outcome.code, outcome.stdout) == (1, "")


def test_a_message_cannot_command_the_terminal(empty_database_url: str) -> None:
    outcome = pgembed("status", "--dsn", make_conninfo(empty_database_url, dbname="\x1b[31m\u202e"))
    assert outcome.code == 1
    assert r"\x1b[31m\u202e" in outcome.stderr
    assert "\x1b" not in outcome.stderr


def test_square_brackets_are_text_and_not_markup(empty_database_url: str) -> None:
    outcome = pgembed("status", "--dsn", make_conninfo(empty_database_url, dbname="[/red] [bold]"))
    assert outcome.code == 1
    assert "[/red] [bold]" in outcome.stderr


# ---------------------------------------------------------------- errors of the server


def closed_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def make_role(empty_database_url: str) -> Iterator[Callable[[str], str]]:
    """A function that makes a role with a password and returns the DSN of the empty database for it."""
    made = []

    def make(role: str) -> str:
        with psycopg.connect(empty_database_url, autocommit=True) as admin:
            admin.execute(f"DROP ROLE IF EXISTS {role}")
            admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'hunter2'")
        made.append(role)
        return make_conninfo(empty_database_url, user=role)

    yield make
    with psycopg.connect(empty_database_url, autocommit=True) as admin:
        for role in made:
            admin.execute(f"DROP OWNED BY {role}")
            admin.execute(f"DROP ROLE {role}")


def test_a_refused_connection_names_the_server_and_what_to_check() -> None:
    port = closed_port()
    outcome = pgembed("status", "--dsn", f"postgresql://me@127.0.0.1:{port}/app")
    assert (outcome.code, outcome.stdout) == (1, "")
    assert f"Cannot connect to host=127.0.0.1 port={port} dbname=app user=me" in outcome.stderr
    assert "Check --dsn or PGEMBED_DSN" in outcome.stderr


def test_a_missing_table_sends_to_migrate(conn: psycopg.Connection, database_url: str) -> None:
    conn.execute("DROP TABLE pgembed.rejected_items")
    outcome = pgembed("status", "--dsn", database_url)
    assert (outcome.code, outcome.stdout) == (1, "")
    assert 'relation "pgembed.rejected_items" does not exist' in outcome.stderr
    assert "pgembed migrate" in outcome.stderr


def test_a_missing_privilege_asks_for_a_grant(make_role: Callable[[str], str], empty_database_url: str) -> None:
    restricted = make_role("pgembed_test_restricted")
    upgrade(empty_database_url)
    outcome = pgembed("status", "--dsn", restricted)
    assert (outcome.code, outcome.stdout) == (1, "")
    assert "The role pgembed_test_restricted may not read the schema pgembed." in outcome.stderr
    assert "GRANT pgembed_reader TO pgembed_test_restricted;" in outcome.stderr
    with psycopg.connect(empty_database_url, autocommit=True) as admin:
        admin.execute("GRANT USAGE ON SCHEMA pgembed TO pgembed_test_restricted")
        admin.execute("GRANT SELECT ON pgembed.alembic_version TO pgembed_test_restricted")
    outcome = pgembed("status", "--dsn", restricted)
    assert (outcome.code, outcome.stdout) == (1, "")
    assert "permission denied for table" in outcome.stderr
    assert "Grant the role what it lacks" in outcome.stderr


def test_a_privilege_that_is_missing_in_a_migration_asks_for_a_grant(
    make_role: Callable[[str], str], empty_database_url: str
) -> None:
    restricted = make_role("pgembed_test_migrator")
    upgrade(empty_database_url, revisions()[0])
    with psycopg.connect(empty_database_url, autocommit=True) as admin:
        admin.execute("GRANT USAGE, CREATE ON SCHEMA pgembed TO pgembed_test_migrator")
        admin.execute(f"GRANT CREATE ON DATABASE {admin.info.dbname} TO pgembed_test_migrator")
        # the tables are the role's, as far as that is looked at before
        admin.execute("ALTER TABLE pgembed.alembic_version OWNER TO pgembed_test_migrator")
    outcome = pgembed("migrate", "--dsn", restricted)
    assert (outcome.code, outcome.stdout) == (1, "")
    assert "Error: must be owner of" in outcome.stderr or "Error: permission denied" in outcome.stderr
    assert "Grant the role what it lacks" in outcome.stderr


@pytest.fixture
def held_migrations(database_url: str) -> Iterator[psycopg.Connection]:
    """A connection that holds the lock of the migrations: `pgembed migrate` waits until something happens to it."""
    with psycopg.connect(database_url, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (_LOCK_KEY,))
        yield holder


def _waiting(holder: psycopg.Connection, process: "subprocess.Popen[str]") -> int:
    """Return the backend of pgembed that waits for the lock, once it does."""
    for _ in range(1000):
        row = holder.execute(
            """SELECT pid FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name LIKE 'pgembed[%'"""
        ).fetchone()
        if row is not None:
            return int(row[0])
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError("pgembed never waited")


def _start(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pgembed", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_an_interrupt_exits_130_and_says_that_running_again_goes_on(
    held_migrations: psycopg.Connection, database_url: str
) -> None:
    process = _start("migrate", "--dsn", database_url)
    _waiting(held_migrations, process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert "run the same command again to go on" in stderr
    assert "Traceback" not in stderr


def test_a_lost_connection_says_that_running_again_goes_on(
    held_migrations: psycopg.Connection, database_url: str
) -> None:
    process = _start("migrate", "--dsn", database_url)
    held_migrations.execute("SELECT pg_terminate_backend(%s)", (_waiting(held_migrations, process),))
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (1, "")
    assert "terminating connection" in stderr
    assert "run the same command again" in stderr
    assert "Traceback" not in stderr


def test_a_statement_timeout_is_named(held_migrations: psycopg.Connection, database_url: str) -> None:
    outcome = pgembed("migrate", "--dsn", make_conninfo(database_url, options="-c statement_timeout=300ms"))
    assert (outcome.code, outcome.stdout) == (1, "")
    assert "statement timeout" in outcome.stderr
    assert "Raise statement_timeout" in outcome.stderr


def test_a_path_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = typer.Typer(pretty_exceptions_enable=False)

    @broken.command()
    def command() -> None:
        (tmp_path / "file" / "below").mkdir()

    (tmp_path / "file").write_text("")
    monkeypatch.setattr(module, "app", broken)
    monkeypatch.setenv("PGEMBED_HOME", "/somewhere")
    outcome = pgembed()
    assert outcome.code == 1
    assert outcome.stderr.startswith(f"Error: Not a directory: {tmp_path / 'file' / 'below'}")
    assert "PGEMBED_HOME (it is /somewhere)" in outcome.stderr


def test_an_argument_that_is_no_text_is_named(conn: psycopg.Connection, database_url: str) -> None:
    outcome = pgembed("triplets", "--language", "a\udcff", "--dsn", database_url)
    assert outcome.code == 1
    assert r"not text in UTF-8: 'a\udcff'" in outcome.stderr


def test_what_is_no_error_of_the_server_or_ours_is_not_hidden(conn: psycopg.Connection, database_url: str) -> None:
    conn.execute(
        "ALTER TABLE pgembed.sources RENAME root TO trunk"
    )  # no remedy is known: it is a bug, with its traceback
    with pytest.raises(psycopg.errors.UndefinedColumn):
        pgembed("status", "--dsn", database_url)


# ---------------------------------------------------------------- passwords


UNUSABLE = [
    "postgresql://me:hunter2@127.0.0.1:{port}/app",
    "postgresql+psycopg://me:hunter2@127.0.0.1:{port}/app",
    "postgresql://me@127.0.0.1:{port}/app?password=hunter2",
    "host=127.0.0.1 port={port} user=me password=hunter2",
    "postgresql://me:hunter2@127.0.0.1:nonsense/app",
    "host=127.0.0.1 password=hunter2 sslmode=nonsense",
    # what libpq cannot read
    "mysql://me:hunter2@127.0.0.1/app",
    "host=127.0.0.1 password=hun hunter2",
    "host=127.0.0.1 password='hunter2",
    "postgresql://me:%hunter2@127.0.0.1/app",
    "hunter2",
    # what libpq reads as something else: a port, a host, a database
    "postgresql://me:hunter2/x@127.0.0.1:{port}/app",
    "postgresql://me:1234/hunter2@127.0.0.1:{port}/app",
    "postgresql://me:x@hunter2@127.0.0.1:{port}/app",
    "postgres://me:x/hunter2@127.0.0.1:{port}/app?sslmode=disable",
]


@pytest.mark.parametrize("command", [["status"], ["doctor"], ["doctor", "--json"], ["migrate"]], ids=" ".join)
@pytest.mark.parametrize("dsn", UNUSABLE)
def test_a_password_is_never_shown(dsn: str, command: list[str]) -> None:
    outcome = pgembed(*command, "--dsn", dsn.format(port=closed_port()))
    assert outcome.code == 1
    assert "hunter2" not in outcome.stdout + outcome.stderr
    assert outcome.stdout + outcome.stderr != ""


def test_a_password_in_the_environment_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGEMBED_DSN", f"postgresql://me:hunter2@127.0.0.1:{closed_port()}/app")
    outcome = pgembed("status")
    assert outcome.code == 1
    assert "user=me" in outcome.stderr
    assert "hunter2" not in outcome.stderr


def test_a_password_does_not_stand_in_the_traceback_of_a_bug(conn: psycopg.Connection, database_url: str) -> None:
    conn.execute("ALTER TABLE pgembed.sources RENAME root TO trunk")
    process = _start("status", "--dsn", f"{database_url} password=hunter2")
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "UndefinedColumn" in stderr
    assert "hunter2" not in stderr


# ---------------------------------------------------------------- output


@pytest.mark.parametrize("arguments", [["doctor"], ["encoders"], ["--help"]], ids=" ".join)
def test_a_locale_without_the_characters_ends_no_command(arguments: list[str], empty_database_url: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PGEMBED_DSN": empty_database_url}
    stdout, stderr = _start(*arguments, env=environment).communicate(timeout=60)
    assert "Traceback" not in stderr
    assert stdout.isascii()
    assert stdout != ""


def test_a_reader_that_leaves_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "pgembed", "migrate", "--sql"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert done.stderr == ""
