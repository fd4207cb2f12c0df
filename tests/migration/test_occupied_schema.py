"""A schema pgembed in which others' objects stand: refused before anything is done, or left to them."""

import re

import psycopg
import pytest
from fixtures_cli import Outcome, pgembed

from pgembed.db import objects
from pgembed.db.migrations import revisions

_OCCUPIED = """
    CREATE SCHEMA pgembed;
    CREATE TABLE pgembed.orders (id serial PRIMARY KEY);
    CREATE VIEW pgembed.late_orders AS SELECT id FROM pgembed.orders;
    CREATE FUNCTION pgembed.search(query text) RETURNS text LANGUAGE sql AS 'SELECT upper(query)';
    CREATE TYPE pgembed.mood AS ENUM ('good');
    CREATE SEQUENCE pgembed.numbers;
"""
_STATE = """
    SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'pgembed'
    UNION ALL
    SELECT p.proname::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'pgembed'
    ORDER BY 1
"""


def state(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        return [name for (name,) in connection.execute(_STATE)]


def execute(dsn: str, statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statements.encode())


def refused(outcome: Outcome) -> str:
    """Return what a refused command says, without its word `Error`; checks that it said that alone."""
    assert (outcome.code, outcome.stdout) == (1, "")
    assert "Traceback" not in outcome.stderr
    return outcome.stderr.removeprefix("Error: ")


@pytest.mark.parametrize("direction", [[], ["--down", "base"]], ids=["up", "down"])
def test_what_stands_there_is_named_by_kind_and_nothing_is_done(empty_database_url: str, direction: list[str]) -> None:
    execute(empty_database_url, _OCCUPIED)
    before = state(empty_database_url)
    said = refused(pgembed("migrate", "--dsn", empty_database_url, *direction))
    assert (
        "The schema pgembed holds what is not pgembed's: function pgembed.search(text), sequence pgembed.numbers, "
        "table pgembed.orders, type pgembed.mood, view pgembed.late_orders."
    ) in said
    assert "ALTER SCHEMA pgembed RENAME TO" in said
    assert state(empty_database_url) == before
    doctor = pgembed("doctor", "--dsn", empty_database_url)
    assert doctor.code == 1
    assert doctor.stdout.count("✗") == 1
    assert "table pgembed.orders" in doctor.stdout


def test_of_many_the_first_ten_are_named(empty_database_url: str) -> None:
    execute(empty_database_url, "CREATE SCHEMA pgembed")
    execute(empty_database_url, "".join(f"CREATE TABLE pgembed.t{n:02d} ();" for n in range(13)))
    said = refused(pgembed("migrate", "--dsn", empty_database_url))
    assert "table pgembed.t00" in said
    assert "table pgembed.t09, and 3 more." in said
    assert "t10" not in said


@pytest.mark.parametrize("revision", ["1975ea83b712", revisions()[0], revisions()[-1], "9999"])
def test_the_schema_of_another_applications_alembic_is_not_called_newer(empty_database_url: str, revision: str) -> None:
    execute(
        empty_database_url,
        "CREATE SCHEMA pgembed; CREATE TABLE pgembed.alembic_version (version_num varchar(32) PRIMARY KEY);"
        f"INSERT INTO pgembed.alembic_version VALUES ('{revision}')",
    )
    said = refused(pgembed("migrate", "--dsn", empty_database_url))
    assert "holds what is not pgembed's: table pgembed.alembic_version." in said
    execute(empty_database_url, "CREATE TABLE pgembed.orders ()")
    said = refused(pgembed("migrate", "--dsn", empty_database_url))
    assert "table pgembed.alembic_version, table pgembed.orders." in said
    assert state(empty_database_url) == ["alembic_version", "alembic_version_pkey", "orders"]


def test_a_revision_that_is_none_of_ours_is_another_applications(database_url: str) -> None:
    execute(database_url, "UPDATE pgembed.alembic_version SET version_num = '1975ea83b712'")
    for command in ("migrate", "status"):
        said = refused(pgembed(command, "--dsn", database_url))
        assert "another application's: its alembic_version says '1975ea83b712'" in said
        assert "newer" not in said


@pytest.mark.parametrize(
    "made",
    ["", "CREATE EXTENSION vector SCHEMA pgembed", "CREATE TABLE pgembed.alembic_version (version_num varchar(32))"],
)
def test_an_empty_schema_is_taken(empty_database_url: str, made: str) -> None:
    execute(empty_database_url, f"CREATE SCHEMA pgembed; {made}")
    outcome = pgembed("migrate", "--dsn", empty_database_url)
    assert (outcome.code, outcome.stdout) == (0, f"Applied: {', '.join(revisions())}\n")
    assert pgembed("doctor", "--dsn", empty_database_url).stdout == "Nothing is wrong.\n"
    with psycopg.connect(empty_database_url) as connection:
        assert objects.others(connection) == []
    down = pgembed("migrate", "--down", "base", "--dsn", empty_database_url)
    assert (down.code, down.stderr) == (0, "")
    assert ("what is not pgembed's: extension vector" in down.stdout) == ("EXTENSION" in made)
    assert "code_chunks" not in state(empty_database_url)


def test_a_search_path_with_our_schema_first_does_not_put_the_extension_there(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET search_path = pgembed, public")
    assert pgembed("migrate", "--dsn", empty_database_url).code == 0
    with psycopg.connect(empty_database_url) as connection:
        place = connection.execute("SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'vector'")
        assert place.fetchone() == ("public",)


def test_all_that_a_migration_makes_is_ours_and_all_else_is_not(conn: psycopg.Connection) -> None:
    conn.execute("CREATE TABLE pgembed.code_embeddings_7 PARTITION OF pgembed.code_embeddings FOR VALUES IN (7)")
    assert objects.others(conn) == []
    conn.execute("CREATE FUNCTION pgembed.search(text) RETURNS int LANGUAGE sql AS 'SELECT 1'")
    conn.execute("CREATE TABLE pgembed.code_embeddings_old (LIKE pgembed.code_embeddings)")
    assert [str(one) for one in objects.others(conn)] == [
        "function pgembed.search(text)",
        "table pgembed.code_embeddings_old",
    ]


def test_a_schema_of_ours_with_tables_and_views_of_a_users_is_upgraded(empty_database_url: str) -> None:
    first, *later = revisions()
    assert pgembed("migrate", "--to", first, "--dsn", empty_database_url).code == 0
    execute(
        empty_database_url,
        "CREATE TABLE pgembed.notes (chunk bigint REFERENCES pgembed.code_chunks, text text);"
        "CREATE VIEW pgembed.my_chunks AS SELECT id, symbol FROM pgembed.code_chunks",
    )
    assert pgembed("migrate", "--dsn", empty_database_url).stdout == f"Applied: {', '.join(later)}\n"
    assert {"notes", "my_chunks"} <= set(state(empty_database_url))


def test_an_upgrade_that_meets_a_name_that_is_taken_does_nothing_and_says_so(empty_database_url: str) -> None:
    first = revisions()[0]
    pgembed("migrate", "--to", first, "--dsn", empty_database_url)
    execute(empty_database_url, "CREATE TABLE pgembed.lexical_documents (mine text)")
    before = state(empty_database_url)
    said = refused(pgembed("migrate", "--dsn", empty_database_url))
    assert 'Nothing was done: relation "lexical_documents" already exists' in said
    assert state(empty_database_url) == before


# ---------------------------------------------------------------- going down


def test_what_is_ours_goes_and_the_rest_stays_where_it_is(conn: psycopg.Connection, database_url: str) -> None:
    conn.execute("CREATE TABLE pgembed.code_embeddings_7 PARTITION OF pgembed.code_embeddings FOR VALUES IN (7)")
    conn.execute("CREATE TABLE pgembed.code_embeddings_8 (LIKE pgembed.code_embeddings)")
    conn.execute("CREATE TABLE pgembed.notes (id serial PRIMARY KEY, text text)")
    conn.execute("INSERT INTO pgembed.notes (text) VALUES ('mine')")
    conn.execute("CREATE FUNCTION pgembed.search(text) RETURNS text LANGUAGE sql AS 'SELECT $1'")
    outcome = pgembed("migrate", "--down", "base", "--dsn", database_url)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.stdout.splitlines()[:3] == [
        f"Undone: {', '.join(reversed(revisions()))}",
        "Left in place: the extension vector",
        "Left in place: the schema pgembed, with what is not pgembed's: function pgembed.search(text), "
        "table pgembed.notes",
    ]
    assert state(database_url) == ["notes", "notes_id_seq", "notes_pkey", "search"]
    assert conn.execute("SELECT text, pgembed.search('x') FROM pgembed.notes").fetchone() == ("mine", "x")


_NEEDING = {
    "view public.mine": "CREATE VIEW public.mine AS SELECT id FROM pgembed.code_chunks",
    "view pgembed.mine": "CREATE VIEW pgembed.mine AS SELECT id FROM pgembed.code_chunks",
    "table constraint notes_chunk_fkey on public.notes": "CREATE TABLE public.notes (chunk bigint"
    " REFERENCES pgembed.code_chunks)",
    "function public.of_chunk(pgembed.code_chunks)": "CREATE FUNCTION public.of_chunk(pgembed.code_chunks) RETURNS int"
    " LANGUAGE sql AS 'SELECT 1'",
    "function public.parsed()": "CREATE FUNCTION public.parsed() RETURNS bigint LANGUAGE sql"
    " BEGIN ATOMIC SELECT count(*) FROM pgembed.tokens; END",
    "default value for public.kept.split": "CREATE TABLE public.kept (split text DEFAULT pgembed.split_of('a', 'b'))",
    "trigger told on public.loud": "CREATE TABLE public.loud (); CREATE TRIGGER told AFTER INSERT ON public.loud"
    " EXECUTE FUNCTION pgembed.notify_chunks()",
    "table pgembed.archive": "CREATE TABLE pgembed.archive PARTITION OF pgembed.code_embeddings FOR VALUES IN (900)",
    "table public.hits": "CREATE TABLE public.hits (hit pgembed.search_hit)",
}  # fmt: skip


@pytest.mark.parametrize("needing", _NEEDING)
def test_what_needs_ours_is_named_and_nothing_is_done(database_url: str, needing: str) -> None:
    execute(database_url, _NEEDING[needing])
    before = state(database_url)
    said = refused(pgembed("migrate", "--down", "base", "--dsn", database_url))
    assert "Nothing was done, since these need what would be dropped: " in said
    assert re.search(rf"[:,] {re.escape(needing)}[,.]", said)
    assert state(database_url) == before


def test_what_a_user_put_onto_our_tables_goes_with_them(conn: psycopg.Connection, database_url: str) -> None:
    conn.execute("CREATE INDEX my_index ON pgembed.code_chunks (line_count)")
    conn.execute("CREATE STATISTICS pgembed.my_statistics ON language, kind FROM pgembed.code_chunks")
    conn.execute("CREATE FUNCTION public.mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    conn.execute("CREATE TRIGGER mine AFTER INSERT ON pgembed.sources EXECUTE FUNCTION public.mine()")
    conn.execute("CREATE PUBLICATION all_sources FOR TABLE pgembed.sources")
    assert objects.dependents(conn) == []
    assert pgembed("migrate", "--down", "base", "--dsn", database_url).code == 0
    assert conn.execute("SELECT to_regnamespace('pgembed')").fetchone() == (None,)


def test_the_server_says_what_needs_the_objects_of_an_older_revision(empty_database_url: str) -> None:
    older = revisions()[-2]
    pgembed("migrate", "--to", older, "--dsn", empty_database_url)
    execute(empty_database_url, "CREATE VIEW public.mine AS SELECT id FROM pgembed.code_chunks")
    before = state(empty_database_url)
    said = refused(pgembed("migrate", "--down", "base", "--dsn", empty_database_url))
    assert "Nothing was done: " in said
    assert "view mine depends on" in said
    assert state(empty_database_url) == before


def test_a_schema_that_this_role_could_not_make_again_stays(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS pgembed_test_guest")
        admin.execute("CREATE ROLE pgembed_test_guest LOGIN")
        admin.execute("CREATE EXTENSION vector")
        admin.execute("CREATE SCHEMA pgembed AUTHORIZATION pgembed_test_guest")
        guest = f"{empty_database_url} user=pgembed_test_guest"
        assert pgembed("migrate", "--dsn", guest).stdout.startswith("Applied: ")
        down = pgembed("migrate", "--down", "base", "--dsn", guest)
        assert "Left in place: the empty schema pgembed, which is pgembed_test_guest's" in down.stdout
        assert pgembed("migrate", "--dsn", guest).stdout.startswith("Applied: ")
        admin.execute("DROP OWNED BY pgembed_test_guest CASCADE")
        admin.execute("DROP ROLE pgembed_test_guest")
