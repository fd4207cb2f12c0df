"""`pgembed migrate`: repeatable, concurrent, reversible, and honest about a database it does not fit."""

import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgembed.corpus.ingest import ingest
from pgembed.db import migrations
from pgembed.db.connection import connect
from pgembed.db.embedded import EmbeddedServer
from pgembed.db.migrations import downgrade, offline_script, require_current, revisions, upgrade
from pgembed.db.preflight import preflight
from pgembed.db.snapshot import schema_text
from pgembed.db.sql import resources
from pgembed.errors import DatabaseError, SchemaError
from pgembed.vectors.search import chunks_without_words


def _objects(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            """SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('pgembed')::oid
               UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = to_regnamespace('pgembed')::oid"""
        ).fetchall()
    return {name for (name,) in rows}


def test_upgrade_applies_every_revision_once(empty_database_url: str) -> None:
    assert upgrade(empty_database_url) == revisions()
    assert upgrade(empty_database_url) == []


def test_nothing_is_made_outside_the_schema(empty_database_url: str) -> None:
    outside = """SELECT relname FROM pg_class WHERE relnamespace NOT IN
        (SELECT oid FROM pg_namespace WHERE nspname IN ('pgembed', 'pg_toast', 'pg_catalog', 'information_schema'))"""
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        before = connection.execute(outside).fetchall()
        upgrade(empty_database_url)
        assert connection.execute(outside).fetchall() == before


def test_two_at_once_are_safe(empty_database_url: str) -> None:
    done: list[list[str]] = []
    threads = [threading.Thread(target=lambda: done.append(upgrade(empty_database_url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [[], [], [], revisions()]


def test_each_revision_can_be_undone(empty_database_url: str) -> None:
    states = []
    for revision in revisions():
        states.append(_objects(empty_database_url) - {"alembic_version", "alembic_version_pkc"})
        upgrade(empty_database_url, revision)
    for revision, before in zip(reversed(["base", *revisions()[:-1]]), reversed(states), strict=True):
        downgrade(empty_database_url, revision)
        assert _objects(empty_database_url) - {"alembic_version", "alembic_version_pkc"} == before
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT to_regnamespace('pgembed')").fetchone() == (None,)


def test_offline_script_makes_the_same_schema(
    database_url: str, empty_database_url: str, embedded_server: EmbeddedServer
) -> None:
    done = subprocess.run(
        [str(embedded_server.binary("psql")), empty_database_url, "-v", "ON_ERROR_STOP=1", "-q"],
        input=offline_script(),
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert schema_text(embedded_server, empty_database_url) == schema_text(embedded_server, database_url)


def test_snapshot_is_up_to_date(database_url: str, embedded_server: EmbeddedServer) -> None:
    committed = (resources() / "sql" / "schema.sql").read_text(encoding="utf-8")
    assert committed == schema_text(embedded_server, database_url), "run `python -m pgembed.db.snapshot`"


def test_a_newer_database_is_refused_by_name(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE pgembed.alembic_version SET version_num = '9999'")
        for action in (lambda: upgrade(database_url), lambda: require_current(connection)):
            with pytest.raises(SchemaError, match="9999") as caught:
                action()
            assert revisions()[-1] in str(caught.value)


def test_an_older_or_empty_database_is_sent_to_migrate(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        with pytest.raises(SchemaError, match="pgembed migrate"):
            require_current(connection)
        upgrade(empty_database_url, revisions()[0])
        with pytest.raises(SchemaError, match=f"at revision {revisions()[0]}.*needs {revisions()[-1]}"):
            require_current(connection)


def test_a_failing_revision_leaves_nothing_behind(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = migrations.resource_text
    last = "tables/tables.v01.sql"
    monkeypatch.setattr(migrations, "resource_text", lambda name: real(name) + ("SELECT 1/0;" if name == last else ""))
    with pytest.raises(Exception, match="division by zero"):
        upgrade(empty_database_url)
    assert _objects(empty_database_url) == set()


@pytest.fixture
def plain_role(empty_database_url: str) -> str:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS plain")
        connection.execute("CREATE ROLE plain LOGIN")
        info = connection.info
        return make_conninfo(host=info.host, port=info.port, user="plain", dbname=info.dbname)


def test_preflight_names_missing_privileges_and_remedies(plain_role: str) -> None:
    with pytest.raises(DatabaseError) as caught:
        upgrade(plain_role)
    message = str(caught.value)
    assert "CREATE EXTENSION vector" in message
    assert "GRANT CREATE ON DATABASE" in message


def test_no_superuser_is_needed(plain_role: str, empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute(f"GRANT CREATE ON DATABASE {connection.info.dbname} TO plain")
    with connect(plain_role) as connection:
        assert preflight(connection) == []
    assert upgrade(plain_role) == revisions()
    assert downgrade(plain_role) == revisions()[::-1]


def test_vector_may_live_in_another_schema(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute('CREATE SCHEMA "Odd Extensions"')
        connection.execute('CREATE EXTENSION vector SCHEMA "Odd Extensions"')
    assert upgrade(empty_database_url) == revisions()


def test_command_line(empty_database_url: str) -> None:
    def pgembed(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "pgembed", *arguments], capture_output=True, text=True, check=False
        )

    assert f"Applied: {', '.join(revisions())}" in pgembed("migrate", "--dsn", empty_database_url).stdout
    assert "nothing was done" in pgembed("migrate", "--dsn", empty_database_url).stdout
    wrong = pgembed("migrate", "--to", "0815")
    assert wrong.returncode == 2
    assert "0815" in wrong.stderr
    unreachable = pgembed("migrate", "--dsn", "postgresql://me:hunter2@127.0.0.1:1/x")
    assert unreachable.returncode == 1
    assert "Cannot connect" in unreachable.stderr
    assert "hunter2" not in unreachable.stderr + unreachable.stdout


def test_code_from_before_the_search_by_words_is_found_by_it(empty_database_url: str, tmp_path: Path) -> None:
    upgrade(empty_database_url, "0006")
    with connect(empty_database_url) as connection:
        # as an ingest of that time left it: the body's tokens alone
        connection.execute("INSERT INTO pgembed.tokens (token) VALUES ('dial'), ('host')")
        connection.execute(
            "INSERT INTO pgembed.code_chunks (sha256, language, kind, symbol, content, docstring, body, token_ids,"
            " line_count) VALUES (sha256('x'), 'python', 'function', 'dial', 'x', 'Wait for a peer.', 'dial(host)',"
            " '{1,2}', 1)"
        )
        upgrade(empty_database_url)
        found = "SELECT count(*) FROM pgembed.lexical_matches(%s)"
        assert connection.execute(found, (["host"],)).fetchone() == (1,)
        assert connection.execute(found, (["peer"],)).fetchone() == (0,)
        assert chunks_without_words(connection) == 1
        (tmp_path / "other.py").write_text("def other():\n    return 1\n")
        ingest(connection, tmp_path)
        assert connection.execute(found, (["peer"],)).fetchone() == (1,)
        assert chunks_without_words(connection) == 0
