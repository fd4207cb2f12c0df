"""`pgembed doctor` finds what commonly goes wrong; each of its remedies is one that helps."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from fixtures_chunks import Chunk, add_chunks
from fixtures_cli import pgembed
from psycopg.conninfo import make_conninfo

from pgembed.db.migrations import revisions
from pgembed_code.installation import upgrade_advice


def problems(dsn: str) -> dict[str, str]:
    """Return what doctor finds, with the remedies. Says it to people and to scripts alike, and with the exit code."""
    outcome = pgembed("doctor", "--json", "--dsn", dsn)
    assert outcome.stderr == ""
    told = json.loads(outcome.stdout)["problems"]
    found = {problem["what"]: problem["remedy"] for problem in told}
    failing = [problem for problem in told if not problem["warning"]]
    assert outcome.code == (1 if failing else 0)
    assert all(remedy.strip() for remedy in found.values())
    said = pgembed("doctor", "--dsn", dsn)
    assert said.code == outcome.code
    if found:
        hint = "Some of this can be done for you: pgembed doctor --fix\n" if any(p["fixable"] for p in told) else ""
        end = "" if failing else "Nothing else is wrong.\n"
        marks = {problem["what"]: "!" if problem["warning"] else "✗" for problem in told}
        listed = "".join(f"{marks[what]} {what}\n  {remedy}\n" for what, remedy in found.items())
        assert said.stdout == listed + hint + end
    else:
        assert said.stdout == "Nothing is wrong.\n"
    return found


def only(found: dict[str, str]) -> tuple[str, str]:
    """Return the one problem and its remedy."""
    assert len(found) == 1, found
    return next(iter(found.items()))


def add_plain_chunks(conn: psycopg.Connection, count: int) -> None:
    conn.execute(
        """INSERT INTO pgembed.code_chunks (sha256, language, kind, content, body, token_ids, line_count)
           SELECT sha256(n::text::bytea), 'python', 'function', '', '', '{}', 1 FROM generate_series(1, %s) n""",
        (count,),
    )


# ---------------------------------------------------------------- nothing


def test_a_role_that_may_only_read_is_told_of_nothing_that_it_need_not_do(reader_url: str) -> None:
    assert problems(reader_url) == {}


def test_a_fresh_schema_has_no_problem(database_url: str) -> None:
    assert problems(database_url) == {}


def test_a_searchable_database_has_no_problem(searchable: psycopg.Connection, database_url: str) -> None:
    assert problems(database_url) == {}


# ---------------------------------------------------------------- server and schema


def test_an_unreachable_server(empty_database_url: str) -> None:
    what, remedy = only(problems(make_conninfo(empty_database_url, dbname="there_is_none")))
    assert 'database "there_is_none" does not exist' in what
    assert "--dsn" in remedy


def test_no_schema(empty_database_url: str) -> None:
    what, remedy = only(problems(empty_database_url))
    assert "no schema pgembed" in what
    assert "pgembed migrate" in remedy
    assert pgembed("migrate", "--dsn", empty_database_url).code == 0
    assert problems(empty_database_url) == {}


def test_an_older_schema(empty_database_url: str) -> None:
    pgembed("migrate", "--to", revisions()[0], "--dsn", empty_database_url)
    what, remedy = only(problems(empty_database_url))
    assert f"at revision {revisions()[0]}, this package needs {revisions()[-1]}" in what
    assert "pgembed migrate" in remedy


def test_a_newer_schema(conn: psycopg.Connection, database_url: str) -> None:
    conn.execute("UPDATE pgembed.alembic_version SET version_num = '9999'")
    what, remedy = only(problems(database_url))
    assert "9999" in what
    assert revisions()[-1] in what
    assert upgrade_advice() in remedy


@pytest.fixture
def plain_dsn(empty_database_url: str) -> Iterator[str]:
    """The empty database, for a role without any privilege there."""
    with psycopg.connect(empty_database_url, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS pgembed_test_plain")
        admin.execute("CREATE ROLE pgembed_test_plain LOGIN")
        yield make_conninfo(empty_database_url, user="pgembed_test_plain")
        admin.execute("DROP ROLE pgembed_test_plain")


def test_no_pgvector_and_no_right_to_create_it(plain_dsn: str) -> None:
    found = problems(plain_dsn)
    remedies = " ".join(found.values())
    assert any("extension vector is not in this database" in what for what in found)
    assert any("may not create the schema pgembed" in what for what in found)
    assert "CREATE EXTENSION vector" in remedies
    assert "GRANT CREATE ON DATABASE" in remedies


def test_pgvector_in_a_schema_of_its_own_is_no_problem(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as admin:
        admin.execute('CREATE SCHEMA "Odd Extensions"')
        admin.execute('CREATE EXTENSION vector SCHEMA "Odd Extensions"')
    assert pgembed("migrate", "--dsn", empty_database_url).code == 0
    assert problems(empty_database_url) == {}
    outcome = pgembed(
        "search", "anything", "--dsn", empty_database_url
    )  # its types are found; there is only nothing yet
    assert outcome.code == 1
    assert "No generation is active" in outcome.stderr


# ---------------------------------------------------------------- engines


def test_both_onnx_runtimes(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "onnxruntime_gpu-1.22.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.22.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    what, remedy = only(problems(database_url))
    assert "onnxruntime and onnxruntime-gpu are both installed" in what
    assert "pip uninstall" in remedy


# ---------------------------------------------------------------- contents


def test_too_little_memory_for_the_next_index(conn: psycopg.Connection, database_url: str) -> None:
    conn.execute(f"ALTER DATABASE {conn.info.dbname} SET maintenance_work_mem = '1MB'")
    conn.execute("ALTER TABLE pgembed.code_chunks SET (autovacuum_enabled = false)")
    add_plain_chunks(conn, 700)
    assert problems(database_url) == {}
    conn.execute("TRUNCATE pgembed.code_chunks CASCADE")
    add_plain_chunks(conn, 800)
    conn.execute("ANALYZE pgembed.code_chunks")
    what, remedy = only(problems(database_url))
    assert what == "maintenance_work_mem is 1 MB; an index over 800 chunks wants 2 MB."
    assert "maintenance_work_mem" in remedy
    conn.execute(f"ALTER DATABASE {conn.info.dbname} SET maintenance_work_mem = '2MB'")
    assert problems(database_url) == {}


def test_a_table_of_no_generation(searchable: psycopg.Connection, database_url: str) -> None:
    searchable.execute("CREATE TABLE pgembed.code_embeddings_77 (LIKE pgembed.code_embeddings)")
    what, remedy = only(problems(database_url))
    assert "pgembed.code_embeddings_77" in what
    assert remedy == "pgembed generations prune"
    assert pgembed("generations", "prune", "--dsn", database_url).code == 0
    assert problems(database_url) == {}


def test_a_large_table_that_was_never_analysed(conn: psycopg.Connection, database_url: str) -> None:
    conn.execute("ALTER TABLE pgembed.tokens SET (autovacuum_enabled = false)")
    conn.execute("INSERT INTO pgembed.tokens (token) SELECT n::text FROM generate_series(1, 1500) n")
    conn.execute("SELECT pg_stat_force_next_flush()")
    what, remedy = only(problems(database_url))
    assert what == "The table pgembed.tokens was never analysed: autovacuum is off for it."
    conn.execute(remedy.encode())
    conn.execute("SELECT pg_stat_force_next_flush()")
    assert problems(database_url) == {}


def test_what_autovacuum_will_see_to_is_told_and_fails_nothing(conn: psycopg.Connection, database_url: str) -> None:
    conn.execute("INSERT INTO pgembed.tokens (token) SELECT n::text FROM generate_series(1, 1500) n")
    conn.execute("SELECT pg_stat_force_next_flush()")
    with conn.transaction():
        conn.execute("LOCK TABLE pgembed.tokens IN SHARE UPDATE EXCLUSIVE MODE")  # autovacuum does not come meanwhile
        what, remedy = only(problems(database_url))
        outcome = pgembed("doctor", "--json", "--dsn", database_url)
    assert what == "The table pgembed.tokens was never analysed: autovacuum has not come to it yet."
    assert (outcome.code, [p["warning"] for p in json.loads(outcome.stdout)["problems"]]) == (0, [True])
    conn.execute(remedy.encode())
    assert problems(database_url) == {}


def test_after_an_ingest_nothing_is_left_to_analyse(
    conn: psycopg.Connection, database_url: str, tmp_path: Path
) -> None:
    conn.execute("ALTER TABLE pgembed.lexical_documents SET (autovacuum_enabled = false)")
    functions = (f"def function_{letter}{other}{third}():\n    return {letter!r}\n\n\n"
                 for letter in "abcdefghijk" for other in "abcdefghij" for third in "abcdefghij")  # fmt: skip
    (tmp_path / "many.py").write_text("".join(functions))
    assert pgembed("ingest", str(tmp_path), "--dsn", database_url).code == 0
    conn.execute("SELECT pg_stat_force_next_flush()")
    assert conn.execute("SELECT count(*) FROM pgembed.lexical_documents").fetchone() == (1100,)
    assert problems(database_url) == {}


def test_an_active_model_that_is_gone(searchable: psycopg.Connection, database_url: str, tmp_path: Path) -> None:
    searchable.execute("UPDATE pgembed.generations SET onnx_path = %s", (str(tmp_path / "gone"),))
    what, remedy = only(problems(database_url))
    assert str(tmp_path / "gone") in what
    assert "export" in remedy


def test_a_path_from_the_database_cannot_command_the_terminal(
    searchable: psycopg.Connection, database_url: str
) -> None:
    searchable.execute("UPDATE pgembed.generations SET onnx_path = E'/gone/\\x1b[31m[/red]'")
    outcome = pgembed("doctor", "--dsn", database_url)
    assert r"/gone/\x1b[31m[/red]" in outcome.stdout
    assert "\x1b" not in outcome.stdout


def test_chunks_without_a_vector(searchable: psycopg.Connection, database_url: str) -> None:
    add_chunks(searchable, [Chunk(frozenset({"new"}), body=f"def new{n}(): ...", path="new.py") for n in range(3)])
    what, remedy = only(problems(database_url))
    assert what.startswith("3 chunks have no vector in the active generation")
    assert remedy == "pgembed reindex"
    assert pgembed("reindex", "--dsn", database_url).code == 0
    assert problems(database_url) == {}


def test_chunks_that_the_encoder_rejected_are_not_for_reindex_to_add(
    searchable: psycopg.Connection, database_url: str
) -> None:
    row = searchable.execute(
        "DELETE FROM pgembed.code_embeddings WHERE chunk_id = 2 RETURNING generation_id"
    ).fetchone()
    assert row is not None
    what, _ = only(problems(database_url))
    assert what.startswith("1 chunks have no vector")
    searchable.execute("""UPDATE pgembed.generations SET metrics = metrics || '{"rejected_chunks": [1, 2]}'""")
    assert problems(database_url) == {}


def test_all_is_told_at_once(searchable: psycopg.Connection, database_url: str) -> None:
    searchable.execute("CREATE TABLE pgembed.code_embeddings_77 (LIKE pgembed.code_embeddings)")
    searchable.execute("UPDATE pgembed.generations SET onnx_path = '/gone'")
    add_chunks(searchable, [Chunk(frozenset({"new"}), body="def new(): ...", path="new.py")])
    assert len(problems(database_url)) == 3


# ---------------------------------------------------------------- the schema, as it was made


def test_a_changed_function_and_what_was_switched_off(conn: psycopg.Connection, database_url: str) -> None:
    conn.execute(
        "CREATE OR REPLACE FUNCTION pgembed.split_of(source text, path text) RETURNS text LANGUAGE sql"
        " AS $$ SELECT 'train' $$"
    )
    conn.execute("ALTER TABLE pgembed.code_chunks DISABLE TRIGGER code_chunks_forget_deleted")
    conn.execute("DROP INDEX pgembed.candidate_pairs_chunk_b_idx")
    conn.execute("DROP FUNCTION pgembed.shared_tokens(bigint, bigint)")
    conn.execute("ALTER TABLE pgembed.sources DROP COLUMN revision")
    found = problems(database_url)
    assert {what.partition("made it: ")[2] for what in found} == {
        "function split_of is changed.",
        "function shared_tokens is missing.",
        "trigger code_chunks_forget_deleted is disabled.",
        "index candidate_pairs_chunk_b_idx is missing.",
        "column sources.revision is missing.",
    }
    (remedy,) = (remedy for what, remedy in found.items() if "split_of" in what)
    file = remedy.partition(" ")[0]
    assert "FUNCTION split_of(" in (Path(__file__).parents[3] / file).read_text()


def test_a_persons_own_table_and_function_are_no_drift(conn: psycopg.Connection, database_url: str) -> None:
    conn.execute("CREATE TABLE pgembed.notes (text text)")
    conn.execute("CREATE FUNCTION pgembed.mine() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$")
    assert problems(database_url) == {}


# ---------------------------------------------------------------- the model that answers


def test_a_model_that_was_changed(searchable: psycopg.Connection, database_url: str, tmp_path: Path) -> None:
    row = searchable.execute("SELECT onnx_path FROM pgembed.generations").fetchone()
    assert row is not None
    place = shutil.copytree(row[0], tmp_path / "artefact")
    searchable.execute("UPDATE pgembed.generations SET onnx_path = %s", (str(place),))
    assert problems(database_url) == {}
    with (place / "model.onnx").open("ab") as file:
        file.write(b"more")
    what, remedy = only(problems(database_url))
    assert "is not as it was exported" in what
    assert "sha256" in what
    assert "xport" in remedy


def test_another_model_in_its_folder(searchable: psycopg.Connection, database_url: str) -> None:
    searchable.execute("UPDATE pgembed.generations SET onnx_sha256 = repeat('0', 64)")
    what, _ = only(problems(database_url))
    assert "holds another model than the one that filled the active generation" in what


# ---------------------------------------------------------------- --fix


def test_fix_does_what_is_safe_and_leaves_the_rest(searchable: psycopg.Connection, database_url: str) -> None:
    searchable.execute("CREATE TABLE pgembed.code_embeddings_77 (LIKE pgembed.code_embeddings)")
    searchable.execute("ALTER TABLE pgembed.tokens SET (autovacuum_enabled = false)")
    searchable.execute("INSERT INTO pgembed.tokens (token) SELECT n::text FROM generate_series(1, 1500) n")
    searchable.execute("ALTER TABLE pgembed.candidate_pairs DISABLE TRIGGER candidate_pairs_require_chunks")
    searchable.execute("INSERT INTO pgembed.candidate_pairs VALUES (1, 999999, 1, 0.5)")
    searchable.execute("ALTER TABLE pgembed.candidate_pairs ENABLE TRIGGER candidate_pairs_require_chunks")
    add_chunks(searchable, [Chunk(frozenset({"new"}), body="def new(): ...", path="new.py")])
    searchable.execute("SELECT pg_stat_force_next_flush()")
    before = searchable.execute("SELECT count(*) FROM pgembed.generations").fetchone()
    outcome = pgembed("doctor", "--fix", "--json", "--dsn", database_url)
    assert outcome.code == 1
    said = json.loads(outcome.stdout)
    assert [problem["remedy"] for problem in said["problems"]] == ["pgembed reindex"]
    assert len(said["fixed"]) == 3
    assert searchable.execute("SELECT count(*) FROM pgembed.generations").fetchone() == before
    assert searchable.execute("SELECT to_regclass('pgembed.code_embeddings_77')").fetchone() == (None,)
    assert searchable.execute("SELECT count(*) FROM pgembed.candidate_pairs WHERE chunk_b = 999999").fetchone() == (0,)
    assert pgembed("reindex", "--dsn", database_url).code == 0
    again = pgembed("doctor", "--fix", "--dsn", database_url)
    assert (again.code, again.stdout) == (0, "Nothing is wrong.\n")


def test_pairs_left_in_the_middle(conn: psycopg.Connection, database_url: str) -> None:
    conn.execute("INSERT INTO pgembed.pair_runs (mode, state, min_jaccard, min_tokens) VALUES ('full','joining',0.5,0)")
    what, remedy = only(problems(database_url))
    assert "was left while joining" in what
    assert remedy == "`pgembed pairs` goes on with it."
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended('pgembed.pairs', 0))")
        assert problems(database_url) == {}
    assert pgembed("pairs", "--dsn", database_url).code == 0
    assert problems(database_url) == {}
