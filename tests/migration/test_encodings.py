"""A database that is not in UTF-8 is refused by the name of its encoding, before anything is done."""

from collections.abc import Iterator

import psycopg
import pytest
from fixtures_cli import pgembed
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgembed.db.connection import connect
from pgembed.db.migrations import revisions


@pytest.fixture(params=["SQL_ASCII", "LATIN1", "EUC_JP"])
def encoding(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def dsn(encoding: str, empty_database_url: str) -> Iterator[str]:
    """A database in this encoding, made as an administrator would."""
    name = f"in_{encoding.lower()}"
    database, literal = sql.Identifier(name), sql.Literal(encoding)
    with psycopg.connect(empty_database_url, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(database))
        admin.execute(sql.SQL("CREATE DATABASE {} ENCODING {} LOCALE 'C' TEMPLATE template0").format(database, literal))
        yield make_conninfo(empty_database_url, dbname=name)
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database))


@pytest.mark.parametrize("command", [["migrate"], ["migrate", "--down", "base"], ["doctor"]], ids=" ".join)
def test_it_is_refused_by_name(dsn: str, encoding: str, command: list[str]) -> None:
    outcome = pgembed(*command, "--dsn", dsn)
    assert outcome.code == 1
    said = outcome.stdout + outcome.stderr
    assert f"The database's encoding is {encoding}: pgembed needs UTF8" in said
    assert "ENCODING 'UTF8'" in said
    assert "Traceback" not in said
    assert "Run `pgembed migrate`" not in said
    with connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'pgembed'").fetchone() == (0,)


def test_the_database_that_the_remedy_makes_is_one_that_does(dsn: str, encoding: str) -> None:
    said = pgembed("migrate", "--dsn", dsn).stderr
    (statement,) = (line for line in said.splitlines() if "CREATE DATABASE" in line)
    statement = statement[statement.index("CREATE DATABASE") :].replace("…", "in_utf8")
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS in_utf8")
        admin.execute(statement.encode())
        outcome = pgembed("migrate", "--dsn", make_conninfo(dsn, dbname="in_utf8"))
        assert outcome.stdout == f"Applied: {', '.join(revisions())}\n"
        admin.execute("DROP DATABASE in_utf8 WITH (FORCE)")
