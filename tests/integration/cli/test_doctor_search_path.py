"""`pgembed doctor` warns of roles whose Alembic would take our tables for its application's; nothing fails for it."""

import json
from collections.abc import Iterator

import psycopg
import pytest
from fixtures_cli import pgembed


@pytest.fixture
def app(conn: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """An administrator's connection; roles `pgembed_test_app`, which may enter the schema, and `pgembed`."""
    for role in ("pgembed_test_app", "pgembed"):
        conn.execute(f"DROP ROLE IF EXISTS {role}")
    conn.execute("CREATE ROLE pgembed_test_app LOGIN")
    conn.execute("GRANT USAGE ON SCHEMA pgembed TO pgembed_test_app")
    yield conn
    for role in ("pgembed_test_app", "pgembed"):
        if conn.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is not None:
            conn.execute(f"DROP OWNED BY {role} CASCADE")
            conn.execute(f"DROP ROLE {role}")


def warnings(dsn: str) -> list[tuple[str, str]]:
    """Return what doctor warns of, each with its remedy; checks that it finds nothing else."""
    outcome = pgembed("doctor", "--json", "--dsn", dsn)
    found = json.loads(outcome.stdout)["problems"]
    assert outcome.code == 0, found
    assert all(problem["warning"] for problem in found)
    for line in pgembed("doctor", "--dsn", dsn).stdout.splitlines():
        assert line.startswith(("! The schema pgembed is on", "  ALTER ", "Nothing ")), line
    return [(problem["what"], problem["remedy"]) for problem in found]


@pytest.mark.parametrize("path", ["pgembed, public", "public, pgembed", '"pgembed"'])
@pytest.mark.parametrize(
    ("whose", "statement"),
    [
        ("every role of this database", "ALTER DATABASE {database}"),
        ("role pgembed_test_app", "ALTER ROLE pgembed_test_app"),
        ("role pgembed_test_app in this database", "ALTER ROLE pgembed_test_app IN DATABASE {database}"),
    ],
    ids=["database", "role", "role in database"],
)
def test_our_schema_on_a_search_path_is_told_and_the_remedy_ends_it(
    app: psycopg.Connection, database_url: str, path: str, whose: str, statement: str
) -> None:
    app.execute(f"{statement.format(database=app.info.dbname)} SET search_path = {path}".encode())
    ((what, remedy),) = warnings(database_url)
    assert f"on the search_path of {whose} (" in what
    app.execute(remedy.partition(", or ")[0].encode())
    assert warnings(database_url) == []


def test_a_role_that_cannot_enter_the_schema_does_not_see_it(app: psycopg.Connection, database_url: str) -> None:
    app.execute("REVOKE USAGE ON SCHEMA pgembed FROM pgembed_test_app")
    app.execute("ALTER ROLE pgembed_test_app SET search_path = pgembed, public")
    assert warnings(database_url) == []


def test_paths_without_it_and_those_of_other_databases_are_nobodys_matter(
    app: psycopg.Connection, database_url: str
) -> None:
    app.execute("ALTER ROLE pgembed_test_app SET search_path = public, pgembed_other")
    app.execute("ALTER ROLE pgembed_test_app IN DATABASE postgres SET search_path = pgembed")
    assert warnings(database_url) == []


def test_a_role_of_the_schemas_name_where_others_keep_tables(app: psycopg.Connection, database_url: str) -> None:
    app.execute("CREATE ROLE pgembed LOGIN")
    app.execute("GRANT USAGE ON SCHEMA pgembed TO pgembed")
    assert warnings(database_url) == []  # all that is there is ours
    app.execute("CREATE TABLE public.orders ()")
    ((what, remedy),) = warnings(database_url)
    assert 'role pgembed ("$user", public)' in what
    app.execute(remedy.partition(", or ")[0].encode())
    assert warnings(database_url) == []
    app.execute(f"ALTER ROLE pgembed IN DATABASE {app.info.dbname} RESET search_path")
    app.execute("ALTER ROLE pgembed NOLOGIN")
    assert warnings(database_url) == []
