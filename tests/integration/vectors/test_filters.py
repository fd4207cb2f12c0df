"""A language, kind or source that does not exist is refused with those that do, in SQL and at the command line."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from fixtures_chunks import Chunk, add_chunks
from fixtures_cli import Outcome, pgembed
from fixtures_vectors import MadeUpEncoder
from psycopg import sql

from pgembed.errors import UnknownFilter
from pgembed.vectors.reindex import reindex_with
from pgembed.vectors.search import search

CALLS = {
    "search": "SELECT * FROM pgembed.search(%(vector)s::vector, {filter} => %(value)s)",
    "search_plan": "SELECT * FROM pgembed.search_plan(%(vector)s::vector, {filter} => %(value)s)",
    "nearest": "SELECT * FROM pgembed.nearest(%(vector)s::vector, {filter} => %(value)s)",
    "hybrid by vector": "SELECT * FROM pgembed.hybrid_search(%(vector)s::vector, {filter} => %(value)s)",
    "hybrid by words": "SELECT * FROM pgembed.hybrid_search(NULL, 5, ARRAY['parse'], {filter} => %(value)s)",
    "hybrid by name": "SELECT * FROM pgembed.hybrid_search(NULL, 5, NULL, 'parse', {filter} => %(value)s)",
    "lexical_matches": "SELECT * FROM pgembed.lexical_matches(ARRAY['parse'], {filter} => %(value)s)",
    "lexical_plan": "SELECT * FROM pgembed.lexical_plan(ARRAY['parse'], {filter} => %(value)s)",
}
VECTOR = "[" + ",".join(["0.1"] * 2560) + "]"


def chunk(number: int) -> Chunk:
    return Chunk(frozenset(["parse", f"word{number}"]), body=f"body {number}", path=f"src/f{number}")


@pytest.fixture
def code(conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder) -> psycopg.Connection:
    """Three chunks of the source main: Python functions, a Rust class; all are embedded."""
    add_chunks(conn, [chunk(number) for number in range(3)])
    kinds = [("python", "function"), ("python", "function"), ("rust", "class")]
    for number, (language, kind) in enumerate(kinds):
        conn.execute(
            "UPDATE pgembed.code_chunks SET language = %s, kind = %s WHERE body = %s",
            (language, kind, f"body {number}"),
        )
    reindex_with(database_url, encoder, activate=True)
    return conn


def ask(conn: psycopg.Connection, call: str, filter: str, value: str) -> Any:
    statement = sql.SQL(CALLS[call]).format(filter=sql.Identifier(filter))  # type: ignore[arg-type]
    return conn.execute(statement, {"vector": VECTOR, "value": value}).fetchall()


# ---------------------------------------------------------------- SQL


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("filter", "value", "message", "hint"),
    [
        ("language", "pyton", "no chunk is in the language 'pyton'", "Did you mean python? There are: python, rust."),
        ("language", "go", "no chunk is in the language 'go'", "There are: python, rust."),
        ("language", "Rust", "no chunk is in the language 'Rust'", "Did you mean rust? There are: python, rust."),
        ("language", "", "no chunk is in the language ''", "There are: python, rust."),
        ("kind", "klass", "no chunk is of the kind 'klass'", "Did you mean class? There are: class, function."),
        ("source", "nope", "there is no source 'nope'", "There are: {source}."),
    ],
)
def test_sql_refuses_it_and_says_what_there_is(
    code: psycopg.Connection, call: str, filter: str, value: str, message: str, hint: str
) -> None:
    (source,) = code.execute("SELECT name FROM pgembed.sources").fetchone() or ("",)
    with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
        ask(code, call, filter, value)
    said = caught.value.diag
    assert (said.message_primary, said.message_hint) == (message, hint.format(source=source))
    assert said.column_name == filter


@pytest.mark.parametrize("call", CALLS)
def test_what_exists_and_matches_nothing_here_finds_nothing(code: psycopg.Connection, call: str) -> None:
    both = CALLS[call].replace("{filter} => %(value)s", "language => 'rust', kind => 'function'")
    path = CALLS[call].replace("{filter} => %(value)s", "path => 'nowhere/*'")
    for statement in (both, path):
        rows = code.execute(statement, {"vector": VECTOR}).fetchall()  # type: ignore[call-overload]
        assert "plan" in call or rows == []


@pytest.mark.parametrize("filter", ["language", "kind", "source"])
def test_in_an_empty_database_every_filter_finds_nothing(conn: psycopg.Connection, filter: str) -> None:
    assert ask(conn, "hybrid by words", filter, "python") == []


def test_a_source_without_chunks_exists(code: psycopg.Connection) -> None:
    code.execute("INSERT INTO pgembed.sources (name, root) VALUES ('empty', '/empty')")
    assert ask(code, "search", "source", "empty") == []


def test_a_kind_of_a_package_exists_once_there_is_a_chunk_of_it(code: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        ask(code, "search", "kind", "section")
    code.execute("UPDATE pgembed.code_chunks SET kind = 'section' WHERE body = 'body 1'")
    assert len(ask(code, "search", "kind", "section")) == 1


def test_the_list_is_bounded(code: psycopg.Connection) -> None:
    code.execute(
        """INSERT INTO pgembed.sources (name, root)
           SELECT format('team%%s-%%s', lpad(n::text, 5, '0'), repeat('x', 200)), '/' || n
             FROM generate_series(1, 10000) n""",
        (),
    )
    with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
        ask(code, "search", "source", "x" * 100_000)
    assert len(caught.value.diag.message_primary or "") < 200
    hint = caught.value.diag.message_hint or ""
    assert hint.endswith(" and 9981 more.")
    assert len(hint) < 1500


@pytest.mark.parametrize(
    ("wanted", "names", "nearest"),
    [
        ("pyton", ["go", "php", "python"], "python"),
        ("rsut", ["go", "rust", "ruby"], "rust"),
        ("PYTHON", ["python", "go"], "python"),
        ("methods", ["class", "function", "method"], "method"),
        ("shp", ["shop", "web"], "shop"),
        ("nope", ["code", "shop"], None),
        ("go", ["rust"], None),
        ("", ["rust"], None),
        ("python", [], None),
        ("größe", ["Größe", "x"], "Größe"),
    ],
)
def test_the_name_that_is_meant(conn: psycopg.Connection, wanted: str, names: list[str], nearest: str | None) -> None:
    assert conn.execute("SELECT pgembed.nearest_name(%s, %s::text[])", (wanted, names)).fetchone() == (nearest,)


def test_the_check_reads_an_index_and_not_the_chunks(conn: psycopg.Connection) -> None:
    """However the values lie in the table: of the rarest, all rows stand at its end."""
    conn.execute(
        """INSERT INTO pgembed.code_chunks (sha256, language, kind, content, body, token_ids, line_count)
           SELECT sha256(n::text::bytea), CASE WHEN n > 19990 THEN 'rust' ELSE 'python' END,
                  CASE WHEN n > 19990 THEN 'window' ELSE 'function' END, repeat('x', 500), 'x', '{}', 1
             FROM generate_series(1, 20000) n"""
    )
    conn.execute("VACUUM ANALYZE pgembed.code_chunks")
    (pages,) = conn.execute("SELECT relpages FROM pg_class WHERE relname = 'code_chunks'").fetchone() or (0,)
    statement = "SELECT pgembed.filter_clause(%s, NULL, NULL, %s)"
    conn.execute(statement, ("rust", "window"))
    for language, kind in (("rust", "window"), ("python", "function")):
        (plan,) = conn.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", (language, kind)).fetchone() or (
            [],
        )  # type: ignore[call-overload]
        touched = plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]
        assert touched < 50 < pages


# ---------------------------------------------------------------- Python and the command line


def test_python_knows_which_filter(code: psycopg.Connection, encoder: MadeUpEncoder) -> None:
    with pytest.raises(UnknownFilter) as caught:
        search(code, encoder, "parse", language="pyton")
    assert caught.value.filter == "language"
    assert caught.value.message == "no chunk is in the language 'pyton'."
    assert caught.value.remedy == "Did you mean python? There are: python, rust."


@pytest.fixture
def run(code: psycopg.Connection, database_url: str) -> Callable[..., Outcome]:
    def command(*arguments: str) -> Outcome:
        return pgembed("search", "parse", "--mode", "lexical", *arguments, "--dsn", database_url)

    return command


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--language", "pyton", "Did you mean python? There are: python, rust."),
        ("--kind", "klass", "Did you mean class? There are: class, function."),
        ("--source", "nope", "There are: "),
        ("--source", "[/red]\x1b[31m", r"no source '[/red]\x1b[31m'"),
    ],
)
@pytest.mark.parametrize("form", [[], ["--json"], ["--explain"]], ids=["text", "json", "explain"])
def test_the_command_ends_as_with_every_wrong_option(
    run: Callable[..., Outcome], option: str, value: str, said: str, form: list[str]
) -> None:
    outcome = run(option, value, *form)
    assert (outcome.code, outcome.stdout) == (2, "")
    shown = " ".join(outcome.stderr.replace("│", " ").split())
    assert f"Invalid value for {option}" in shown
    assert said in shown
    assert "\x1b" not in outcome.stderr


def test_filters_that_exist_and_match_nothing_are_no_error(run: Callable[..., Outcome]) -> None:
    assert run("--language", "rust", "--kind", "function", "--json").stdout == "[]\n"
    assert run("--path", "nowhere", "--json").stdout == "[]\n"
