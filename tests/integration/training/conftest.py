"""Triplets without mining: functions that a rule makes up, in a table with the columns of pgembed.triplets."""

from pathlib import Path

import psycopg
import pytest

VERBS = ("read", "write", "parse", "send", "close", "merge", "sort", "count")
NOUNS = ("file", "socket", "table", "header", "tree")


@pytest.fixture
def triplets(conn: psycopg.Connection) -> psycopg.Connection:
    """A database with pgembed.made_up_triplets: 40 docstrings with their functions, 32 of them for training."""
    conn.execute(
        "CREATE TABLE pgembed.made_up_triplets (ordinal bigint PRIMARY KEY, kind text, split text, language text,"
        " anchor text, positive text, negative text)"
    )
    functions = [(verb, noun) for verb in VERBS for noun in NOUNS]
    bodies = [
        f"def {verb}_{noun}(x):\n    value = x.{noun}\n    return {verb}(value, {number})\n"
        for number, (verb, noun) in enumerate(functions)
    ]
    for ordinal, (verb, noun) in enumerate(functions):
        conn.execute(
            "INSERT INTO pgembed.made_up_triplets VALUES (%s, 'docstring', %s, 'python', %s, %s, %s)",
            (
                ordinal,
                "train" if ordinal < 32 else "test",
                f"{verb.title()} the {noun} and give the result back.",
                bodies[ordinal],
                bodies[(ordinal + 1) % 40],
            ),
        )
    return conn


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PGEMBED_HOME of this test alone."""
    monkeypatch.setenv("PGEMBED_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
