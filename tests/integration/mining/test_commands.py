"""`pgembed pairs` and `pgembed triplets` as a person runs them."""

import json

import psycopg
from fixtures_chunks import Chunk, add_chunks
from typer.testing import CliRunner

from pgembed.cli.app import app


def run(dsn: str, *arguments: str) -> str:
    outcome = CliRunner().invoke(app, [*arguments, "--dsn", dsn])
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout


def fill(conn: psycopg.Connection) -> None:
    words = [f"word{letter}" for letter in "abcdefghijklmnopqrst"]
    chunks = [
        Chunk(
            frozenset(words[start : start + 10]),
            body=f"def f{start}():\n    \x1b[31mreturn {start}",
            docstring=f"Return the number {start} in red letters.",
            path=f"file{start}.py",
        )
        for start in range(10)
    ]
    add_chunks(conn, chunks)
    conn.execute("UPDATE pgembed.mining_settings SET value = 1 WHERE name = 'train_share'")


def test_pairs_then_triplets(conn: psycopg.Connection, database_url: str) -> None:
    fill(conn)
    report = json.loads(run(database_url, "pairs", "--min-jaccard", "0.5", "--jobs", "2", "--json"))
    # windows of ten words, moved by at most three: 7/13 ≥ 0.5 > 6/14
    assert (report["chunks"], report["pairs"]) == (10, 9 + 8 + 7)
    assert report["triplets"] > 10
    assert "No new chunks; 24 pairs" in run(database_url, "pairs")

    shown = json.loads(run(database_url, "triplets", "--kind", "docstring", "--limit", "2", "--json"))
    assert [triplet["kind"] for triplet in shown["triplets"]] == ["docstring"] * 2
    assert sum(count["triplets"] for count in shown["counts"]) == report["triplets"]
    assert shown["warnings"]
    # neither 8/12 nor 7/13 is left; 9/11 is
    raised = CliRunner().invoke(app, ["pairs", "--min-jaccard", "0.7", "--dsn", database_url])
    assert "15 pairs below 0.7 are removed" in raised.stderr
    assert "No triplet is of this kind, split and language" in run(database_url, "triplets", "--language", "klingon")


def test_a_terminal_is_never_obeyed(conn: psycopg.Connection, database_url: str) -> None:
    fill(conn)
    run(database_url, "pairs")
    text = run(database_url, "triplets", "--kind", "docstring", "--limit", "3")
    assert "\x1b[31m" not in text
    assert "\\x1b" in text


def test_an_unknown_kind_is_wrong_usage(database_url: str) -> None:
    outcome = CliRunner().invoke(app, ["triplets", "--kind", "poem", "--dsn", database_url])
    assert outcome.exit_code == 2


def test_an_empty_database_says_what_to_do(database_url: str) -> None:
    assert "pgembed ingest" in run(database_url, "triplets")
