"""Triplets without mining: functions that a rule makes up, straight into the tables below the views."""

import hashlib
from pathlib import Path

import psycopg
import pytest

VERBS = ("read", "write", "parse", "send", "close", "merge", "sort", "count")
NOUNS = ("file", "socket", "table", "header", "tree")


@pytest.fixture
def triplets(conn: psycopg.Connection) -> psycopg.Connection:
    """A database with 40 documented functions and a triplet for each, 32 of them for training."""
    ids = []
    for number, (verb, noun) in enumerate((verb, noun) for verb in VERBS for noun in NOUNS):
        body = f"def {verb}_{noun}(x):\n    value = x.{noun}\n    return {verb}(value, {number})\n"
        docstring = f"{verb.title()} the {noun} and give the result back."
        row = conn.execute(
            "INSERT INTO pgembed.code_chunks (sha256, language, kind, content, docstring, body, token_ids, line_count)"
            " VALUES (%s, 'python', 'function', %s, %s, %s, '{}', 3) RETURNING id",
            (hashlib.sha256(body.encode()).digest(), body, docstring, body),
        ).fetchone()
        assert row is not None
        ids.append(row[0])
    for ordinal, chunk in enumerate(ids):
        conn.execute(
            "INSERT INTO pgembed.triplet_candidates VALUES (%s, 'docstring', %s, %s, %s, %s, 1, 0.5, 'look-alike')",
            (ordinal, "train" if ordinal < 32 else "test", chunk, chunk, ids[(ordinal + 1) % 40]),
        )
    return conn


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PGEMBED_HOME of this test alone."""
    monkeypatch.setenv("PGEMBED_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
