"""Databases, schemas and extensions that are another's: what a role may do there works, what it may not is one line."""

from collections.abc import Iterator

import psycopg
import pytest
from fixtures_cli import Outcome, pgembed
from psycopg.conninfo import make_conninfo

from pgembed.db.migrations import revisions

_ROLES = ("pgembed_test_owner", "pgembed_test_guest")


@pytest.fixture
def admin(empty_database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        for role in _ROLES:
            connection.execute(f"DROP ROLE IF EXISTS {role}")
            connection.execute(f"CREATE ROLE {role} LOGIN")
        yield connection
        for role in _ROLES:
            connection.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER")
            connection.execute(f"DROP OWNED BY {role} CASCADE")
            connection.execute(f"DROP ROLE {role}")


class Role:
    """A person's role on the database: runs commands, and holds each to an end without a traceback."""

    def __init__(self, dsn: str, name: str) -> None:
        self.dsn = make_conninfo(dsn, user=name)

    def runs(self, *arguments: str) -> Outcome:
        outcome = pgembed(*arguments, "--dsn", self.dsn)
        assert "Traceback" not in outcome.stdout + outcome.stderr
        return outcome

    def is_told(self, *arguments: str) -> str:
        """Return what a command says that fails."""
        outcome = self.runs(*arguments)
        assert outcome.code == 1
        assert "LINE" not in outcome.stdout + outcome.stderr  # one line, not the server's excerpt of a statement
        return outcome.stdout + outcome.stderr


@pytest.fixture
def owner(admin: psycopg.Connection, empty_database_url: str) -> Role:
    return Role(empty_database_url, "pgembed_test_owner")


@pytest.fixture
def guest(admin: psycopg.Connection, empty_database_url: str) -> Role:
    return Role(empty_database_url, "pgembed_test_guest")


def works(role: Role) -> None:
    assert role.runs("migrate").stdout == f"Applied: {', '.join(revisions())}\n"
    assert role.runs("doctor").stdout == "Nothing is wrong.\n"
    assert role.runs("migrate", "--down", "base").code == 0


def test_the_databases_owner_is_no_superuser(admin: psycopg.Connection, owner: Role) -> None:
    admin.execute(f"ALTER DATABASE {admin.info.dbname} OWNER TO pgembed_test_owner")
    assert "CREATE EXTENSION vector" in owner.is_told("migrate")
    admin.execute("CREATE EXTENSION vector")
    works(owner)
    admin.execute(f"ALTER DATABASE {admin.info.dbname} OWNER TO CURRENT_USER")


def test_a_schema_of_ones_own_in_anothers_database_is_enough(admin: psycopg.Connection, owner: Role) -> None:
    admin.execute("CREATE EXTENSION vector")
    admin.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    admin.execute("CREATE SCHEMA pgembed AUTHORIZATION pgembed_test_owner")
    works(owner)


def test_the_extension_in_a_schema_that_is_closed(admin: psycopg.Connection, owner: Role) -> None:
    admin.execute('CREATE SCHEMA "Odd Extensions"')
    admin.execute('CREATE EXTENSION vector SCHEMA "Odd Extensions"')
    admin.execute(f"GRANT CREATE ON DATABASE {admin.info.dbname} TO pgembed_test_owner")
    said = owner.is_told("migrate")
    assert 'The extension vector stands in the schema "Odd Extensions", which this role may not use.' in said
    assert said == said.replace("GRANT CREATE ON DATABASE", "")
    admin.execute(said.partition("As that schema's owner: ")[2].encode())
    works(owner)


def test_a_schema_in_which_the_role_may_create_nothing(admin: psycopg.Connection, owner: Role) -> None:
    admin.execute("CREATE EXTENSION vector")
    admin.execute("CREATE SCHEMA pgembed")
    admin.execute(f"GRANT CREATE ON DATABASE {admin.info.dbname} TO pgembed_test_owner")
    for said in (owner.is_told("migrate"), owner.is_told("doctor")):
        assert "The schema pgembed is postgres's, and this role may not create anything in it." in said
        assert said.count("As postgres: ") == 1
    admin.execute(said.partition("or ")[2].strip().encode())
    works(owner)
    assert "schema pgembed, which is postgres's" in owner.runs("migrate", "--down", "base", "--json").stdout


def test_no_schema_that_could_hold_the_extension(admin: psycopg.Connection, empty_database_url: str) -> None:
    admin.execute("DROP SCHEMA public")
    said = Role(empty_database_url, "postgres").is_told("migrate")
    assert "no schema on the search_path could hold it" in said
    admin.execute(said.partition("make the schema public: ")[2].encode())
    works(Role(empty_database_url, "postgres"))


def test_another_role_may_neither_read_nor_change_what_is_there(
    admin: psycopg.Connection, owner: Role, guest: Role
) -> None:
    admin.execute("CREATE EXTENSION vector")
    admin.execute("CREATE SCHEMA pgembed AUTHORIZATION pgembed_test_owner")
    first = revisions()[0]
    assert owner.runs("migrate", "--to", first).code == 0
    for command in (["migrate"], ["migrate", "--down", "base"], ["status"], ["doctor"], ["db", "roles"]):
        said = guest.is_told(*command)
        assert "The role pgembed_test_guest may not read the schema pgembed." in said
        assert "As pgembed_test_owner: `pgembed db roles`" in said
    admin.execute("GRANT USAGE ON SCHEMA pgembed TO pgembed_test_guest")
    admin.execute("GRANT SELECT ON ALL TABLES IN SCHEMA pgembed TO pgembed_test_guest")
    for command in (["migrate"], ["migrate", "--down", "base"]):
        said = guest.is_told(*command)
        assert "The tables of schema pgembed are pgembed_test_owner's; pgembed_test_guest may not change them." in said
    admin.execute("GRANT pgembed_test_owner TO pgembed_test_guest")
    assert guest.runs("migrate").code == 0


def test_a_reader_may_run_what_changes_nothing(admin: psycopg.Connection, owner: Role, guest: Role) -> None:
    admin.execute("CREATE EXTENSION vector")
    admin.execute("CREATE SCHEMA pgembed AUTHORIZATION pgembed_test_owner")
    assert owner.runs("migrate").code == 0
    admin.execute("GRANT USAGE ON SCHEMA pgembed TO pgembed_test_guest")
    admin.execute("GRANT SELECT ON ALL TABLES IN SCHEMA pgembed TO pgembed_test_guest")
    assert "nothing was done" in guest.runs("migrate").stdout
    assert guest.runs("doctor").stdout == "Nothing is wrong.\n"
    admin.execute("REVOKE SELECT ON pgembed.generations FROM pgembed_test_guest")
    assert "permission denied for table generations" in guest.is_told("doctor")


def test_doctor_where_there_is_no_schema(guest: Role, empty_database_url: str) -> None:
    said = guest.is_told("doctor")
    assert said.count("✗") == 2
    assert "GRANT CREATE ON DATABASE empty TO pgembed_test_guest" in said
    assert Role(empty_database_url, "postgres").is_told("doctor").count("✗") == 1
