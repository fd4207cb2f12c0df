"""Least privilege: what a reader and a writer can do, and that they can do nothing else."""

import contextlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import numpy as np
import psycopg
import pytest
from fixtures_cli import pgembed
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgembed.corpus.ingest import ingest
from pgembed.db.connection import connect
from pgembed.db.roles import ROLES, apply_roles
from pgembed.mining.pairs import find_pairs
from pgembed.mining.triplets import refresh_triplets

# What a writer has no business with: models that answer, and the schema's own state.
OWNERS = {"active_generation", "generations", "code_embeddings", "alembic_version"}

_NUMBERS = itertools.count()

CODE = '''
def {0}_total(values, weights, scale):
    """Return the weighted total of the {0} values, each multiplied by the scale."""
    total = 0
    for value, weight in zip(values, weights):
        total += value * weight * scale
    return total


def {0}_table(rows, columns, {0}):
    """Print the {0} rows as a table with the given columns, one line for each."""
    for row in rows:
        print(" | ".join(str(row[column]) for column in columns), {0})
'''


def as_role(dsn: str, role: str) -> psycopg.Connection:
    return connect(make_conninfo(dsn, options=f"-c role={role}"), vectors=True)


@pytest.fixture
def reader(conn: psycopg.Connection, database_url: str) -> Iterator[psycopg.Connection]:
    apply_roles(conn)
    with as_role(database_url, "pgembed_reader") as connection:
        yield connection


@pytest.fixture
def writer(conn: psycopg.Connection, database_url: str) -> Iterator[psycopg.Connection]:
    apply_roles(conn)
    with as_role(database_url, "pgembed_writer") as connection:
        yield connection


def tables(conn: psycopg.Connection) -> list[str]:
    rows = conn.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'pgembed'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1"
    )
    return [row[0] for row in rows]


def refused(conn: psycopg.Connection, statement: str, table: str = "") -> bool:
    composed = sql.SQL(statement).format(table=sql.Identifier("pgembed", table))
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(composed)
    except psycopg.errors.InsufficientPrivilege:
        return True
    except psycopg.Error:
        return False  # it was let in, and failed for another reason
    return False


def test_a_reader_reads_everything_and_changes_nothing(reader: psycopg.Connection) -> None:
    names = tables(reader)
    assert len(names) > 20
    for name in names:
        reader.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier("pgembed", name)))
        for statement in ("INSERT INTO {table} DEFAULT VALUES", "DELETE FROM {table}", "TRUNCATE {table} CASCADE"):
            assert refused(reader, statement, name), (statement, name)
    for statement in (
        "CREATE TABLE pgembed.mine (id int)",
        "CREATE FUNCTION pgembed.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE {table} ADD COLUMN mine int",
        "DROP TABLE {table}",
        "DROP FUNCTION pgembed.refresh_triplets()",
        "SELECT pgembed.block_chunk(1, 'no')",
    ):
        assert refused(reader, statement, "code_chunks"), statement


def test_a_reader_searches_and_queries_triplets(
    conn: psycopg.Connection, database_url: str, reader: psycopg.Connection, tmp_path: Path
) -> None:
    for name in ("alpha", "beta"):
        (tmp_path / f"{name}.py").write_text(CODE.format(name))
    ingest(conn, tmp_path)
    find_pairs(conn)
    refresh_triplets(conn)
    reader.execute("SELECT * FROM pgembed.triplets LIMIT 10").fetchall()
    chunk = reader.execute("SELECT id FROM pgembed.code_chunks LIMIT 1").fetchone()
    assert chunk is not None
    assert reader.execute("SELECT * FROM pgembed.why_no_triplets(%s)", chunk).fetchall() is not None
    # a generation that is made after the grants
    vector = np.eye(1, 2560, dtype=np.float32)[0]
    encoder = conn.execute(
        "INSERT INTO pgembed.encoders (name, spec, fingerprint, licence) VALUES ('e', '{}', 'f', 'l') RETURNING id"
    ).fetchone()
    assert encoder is not None
    conn.execute("CREATE TABLE pgembed.embeddings_made_later (LIKE pgembed.code_embeddings)")
    conn.execute("INSERT INTO pgembed.embeddings_made_later VALUES (1, %s, %s)", (chunk[0], vector))
    assert reader.execute("SELECT count(*) FROM pgembed.embeddings_made_later").fetchone() == (1,)


def test_a_writer_ingests_mines_and_marks(writer: psycopg.Connection, database_url: str, tmp_path: Path) -> None:
    for name in ("alpha", "beta", "gamma"):
        (tmp_path / f"{name}.py").write_text(CODE.format(name))
    assert ingest(writer, tmp_path).chunks > 3
    assert find_pairs(writer).chunks > 3
    assert find_pairs(writer, full=True).chunks > 3
    refresh_triplets(writer)
    writer.execute("UPDATE pgembed.mining_settings SET value = 3 WHERE name = 'min_tokens'")
    writer.execute("SELECT pgembed.block_chunk((SELECT min(id) FROM pgembed.code_chunks), 'not good')")
    (tmp_path / "beta.py").unlink()
    ingest(writer, tmp_path)
    assert find_pairs(writer).min_jaccard == 0.5


def test_a_writer_changes_neither_the_schema_nor_which_model_answers(writer: psycopg.Connection) -> None:
    assert set(tables(writer)) >= OWNERS
    for name in OWNERS:
        for statement in ("INSERT INTO {table} DEFAULT VALUES", "DELETE FROM {table}", "TRUNCATE {table} CASCADE"):
            assert refused(writer, statement, name), (statement, name)
    for statement in (
        "CREATE TABLE pgembed.mine (id int)",
        "ALTER TABLE {table} ADD COLUMN mine int",
        "DROP TABLE {table}",
        "CREATE INDEX ON {table} (id)",
        "DROP FUNCTION pgembed.refresh_triplets()",
        "ALTER TABLE {table} DISABLE TRIGGER ALL",
        "GRANT SELECT ON {table} TO PUBLIC",
    ):
        # GRANT by one who may not is a warning, and does nothing
        if statement.startswith("GRANT"):
            writer.execute(sql.SQL(statement).format(table=sql.Identifier("pgembed", "code_chunks")))
            granted = writer.execute(
                "SELECT count(*) FROM information_schema.role_table_grants WHERE grantee = 'PUBLIC'"
                " AND table_schema = 'pgembed'"
            ).fetchone()
            assert granted == (0,)
        else:
            assert refused(writer, statement, "code_chunks"), statement


def test_every_table_is_the_owners_or_the_writers(conn: psycopg.Connection) -> None:
    """A table that a later revision makes, and roles.sql forgets, would be nobody's to write."""
    apply_roles(conn)
    rows = conn.execute(
        """SELECT c.relname FROM pg_class c
            WHERE c.relnamespace = 'pgembed'::regnamespace AND c.relkind IN ('r', 'p')
              AND NOT has_table_privilege('pgembed_writer', c.oid, 'INSERT, UPDATE')"""
    )
    assert {row[0] for row in rows} == OWNERS


def test_granting_twice_is_once_and_takes_back_what_was_too_much(conn: psycopg.Connection) -> None:
    apply_roles(conn)
    conn.execute("GRANT DELETE ON pgembed.generations TO pgembed_reader")
    apply_roles(conn)
    assert conn.execute("SELECT has_table_privilege('pgembed_reader', 'pgembed.generations', 'DELETE')").fetchone() == (
        False,
    )


class Somebody:
    """A role that may log in, for one test."""

    def __init__(self, name: str) -> None:
        self.name, self.identifier = name, sql.Identifier(name)

    def dsn(self, database_url: str) -> str:
        return make_conninfo(database_url, user=self.name)


@contextlib.contextmanager
def somebody(admin: psycopg.Connection, attributes: LiteralString = "") -> Iterator[Somebody]:
    made = Somebody(f"Some Body {next(_NUMBERS)}")
    admin.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(made.identifier))
    admin.execute(sql.SQL("CREATE ROLE {} LOGIN {}").format(made.identifier, sql.SQL(attributes)))
    yield made
    there = "SELECT rolname FROM pg_roles WHERE rolname = ANY (%s)"
    for (role,) in admin.execute(there, (list(ROLES),)).fetchall():  # whom one gave rights holds one
        admin.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(role)))
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
    admin.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(made.identifier))
    admin.execute(sql.SQL("DROP ROLE {}").format(made.identifier))


@pytest.fixture
def without_roles(empty_database_url: str) -> Iterator[psycopg.Connection]:
    """An administrator's connection to a database with the extension, on a server that has none of our roles."""
    with psycopg.connect(empty_database_url, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS pgembed_reader")
        admin.execute("DROP ROLE IF EXISTS pgembed_writer")
        admin.execute("CREATE EXTENSION vector")
        yield admin


def test_an_owner_without_createrole_does_what_is_said_and_can_give_the_roles_away(
    without_roles: psycopg.Connection, empty_database_url: str
) -> None:
    admin = without_roles
    with somebody(admin) as owner, contextlib.ExitStack() as end:
        admin.execute(sql.SQL("CREATE SCHEMA pgembed AUTHORIZATION {}").format(owner.identifier))
        dsn = owner.dsn(empty_database_url)
        assert pgembed("migrate", "--dsn", dsn).code == 0
        refused = pgembed("db", "roles", "--dsn", dsn)
        assert (refused.code, refused.stdout) == (1, "")
        assert "it has no CREATEROLE" in refused.stderr
        said = refused.stderr.partition("As an administrator: ")[2].partition(" Then run it again.")[0]
        admin.execute(said.encode())
        told = pgembed("db", "roles", "--json", "--dsn", dsn)
        assert told.code == 0
        assert all(role["can_be_granted"] for role in json.loads(told.stdout)["roles"].values())
        admin.execute("CREATE ROLE pgembed_test_app LOGIN")
        end.callback(admin.execute, "DROP ROLE pgembed_test_app")
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("GRANT pgembed_reader TO pgembed_test_app")
        app = make_conninfo(empty_database_url, user="pgembed_test_app")
        assert pgembed("status", "--dsn", app).code == 0
        assert pgembed("doctor", "--dsn", app).stdout == "Nothing is wrong.\n"


def test_an_owner_who_may_not_give_the_roles_away_is_told_by_what_he_may(
    without_roles: psycopg.Connection, empty_database_url: str
) -> None:
    admin = without_roles
    with somebody(admin) as owner:
        admin.execute("CREATE ROLE pgembed_reader NOLOGIN")
        admin.execute("CREATE ROLE pgembed_writer NOLOGIN")
        admin.execute(sql.SQL("CREATE SCHEMA pgembed AUTHORIZATION {}").format(owner.identifier))
        dsn = owner.dsn(empty_database_url)
        assert pgembed("migrate", "--dsn", dsn).code == 0
        told = pgembed("db", "roles", "--dsn", dsn)
        assert told.code == 0
        remedy = told.stdout.partition("You may not give them to others yet. As an administrator: ")[2]
        admin.execute(remedy.encode())
        assert "may not give" not in pgembed("db", "roles", "--dsn", dsn).stdout
        with psycopg.connect(dsn, autocommit=True) as connection, connection.transaction(force_rollback=True):
            connection.execute(sql.SQL("GRANT pgembed_writer TO CURRENT_USER"))


def test_an_owner_with_createrole_needs_no_administrator(
    without_roles: psycopg.Connection, empty_database_url: str
) -> None:
    admin = without_roles
    with somebody(admin, "CREATEROLE") as owner:
        admin.execute(sql.SQL("CREATE SCHEMA pgembed AUTHORIZATION {}").format(owner.identifier))
        dsn = owner.dsn(empty_database_url)
        assert pgembed("migrate", "--dsn", dsn).code == 0
        assert "may not give" not in pgembed("db", "roles", "--dsn", dsn).stdout


def test_who_owns_nothing_is_told_who_does(conn: psycopg.Connection, database_url: str) -> None:
    apply_roles(conn)
    with somebody(conn) as guest:
        conn.execute(sql.SQL("GRANT pgembed_writer TO {}").format(guest.identifier))
        refused = pgembed("db", "roles", "--dsn", guest.dsn(database_url))
        assert (refused.code, refused.stdout) == (1, "")
        assert "its tables are postgres's" in refused.stderr
        assert "Run it as postgres." in refused.stderr


def test_a_schema_that_an_administrator_kept_is_his_to_open(
    without_roles: psycopg.Connection, empty_database_url: str
) -> None:
    admin = without_roles
    with somebody(admin, "CREATEROLE") as owner:
        admin.execute(
            sql.SQL("CREATE SCHEMA pgembed; GRANT USAGE, CREATE ON SCHEMA pgembed TO {}").format(owner.identifier)
        )
        dsn = owner.dsn(empty_database_url)
        assert pgembed("migrate", "--dsn", dsn).code == 0
        refused = pgembed("db", "roles", "--dsn", dsn)
        assert refused.code == 1
        assert "may not let others into the schema pgembed, which is postgres's" in refused.stderr
        admin.execute(refused.stderr.partition("As postgres: ")[2].encode())
        assert pgembed("db", "roles", "--dsn", dsn).code == 0


def test_a_table_of_another_role_in_the_schema_is_left_to_it(conn: psycopg.Connection, database_url: str) -> None:
    with somebody(conn, "CREATEROLE") as owner, somebody(conn) as guest:
        conn.execute(sql.SQL("ALTER SCHEMA pgembed OWNER TO {}").format(owner.identifier))
        for name in tables(conn):
            statement = sql.SQL("ALTER TABLE {} OWNER TO {}")
            conn.execute(statement.format(sql.Identifier("pgembed", name), owner.identifier))
        conn.execute("CREATE TABLE pgembed.notes ()")
        conn.execute(sql.SQL("ALTER TABLE pgembed.notes OWNER TO {}").format(guest.identifier))
        outcome = pgembed("db", "roles", "--dsn", owner.dsn(database_url))
        assert (outcome.code, outcome.stderr) == (0, "")
        granted = "SELECT has_table_privilege('pgembed_reader', %s, 'SELECT')"
        assert conn.execute(granted, ("pgembed.sources",)).fetchone() == (True,)
        assert conn.execute(granted, ("pgembed.notes",)).fetchone() == (False,)


def test_members_are_told(conn: psycopg.Connection, database_url: str) -> None:
    apply_roles(conn)
    name = f"somebody_{conn.info.backend_pid}"
    conn.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(name)))
    try:
        conn.execute(sql.SQL("GRANT pgembed_reader TO {}").format(sql.Identifier(name)))
        members = apply_roles(conn)
        assert set(members) == set(ROLES)
        assert name in members["pgembed_reader"]
    finally:
        conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_functions_do_not_follow_a_hostile_search_path(conn: psycopg.Connection) -> None:
    """Each names its path itself, pgembed's schema first and temporary tables last; none asks the caller's."""
    rows = conn.execute(
        "SELECT proname, proconfig, prosqlbody IS NOT NULL FROM pg_proc WHERE pronamespace = 'pgembed'::regnamespace"
    ).fetchall()
    assert len(rows) > 30
    for name, config, is_parsed in rows:
        path = [value for value in config or [] if value.startswith("search_path=")]
        assert is_parsed or (path and path[0].startswith("search_path=pgembed, ") and path[0].endswith("pg_temp")), name


def test_a_temporary_table_or_a_schema_before_ours_hides_nothing(conn: psycopg.Connection) -> None:
    expected = conn.execute("SELECT pgembed.mining_setting('near_duplicate')").fetchone()
    conn.execute("CREATE TEMPORARY TABLE mining_settings (name text, value float8)")
    conn.execute("INSERT INTO pg_temp.mining_settings VALUES ('near_duplicate', 666)")
    conn.execute("CREATE SCHEMA evil")
    conn.execute("CREATE TABLE evil.mining_settings AS SELECT 'near_duplicate' AS name, 667::float8 AS value")
    conn.execute("SET search_path = evil, pg_temp, pgembed, public")
    assert conn.execute("SELECT pgembed.mining_setting('near_duplicate')").fetchone() == expected
