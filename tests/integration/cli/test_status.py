"""`pgembed status`: what is in the database, as counted by hand; and what is happening to it."""

import json
from typing import Any

import psycopg
import pytest
from fixtures_cli import pgembed

from pgembed.db.connection import connect

PARTS = ("sources", "generations", "training_runs", "rejected", "sessions")


def status(dsn: str) -> dict[str, Any]:
    outcome = pgembed("status", "--json", "--dsn", dsn)
    assert (outcome.code, outcome.stderr) == (0, "")
    found = json.loads(outcome.stdout)
    assert isinstance(found, dict)
    return found


def shown(dsn: str) -> str:
    outcome = pgembed("status", "--dsn", dsn)
    assert (outcome.code, outcome.stderr) == (0, "")
    return outcome.stdout


def test_an_empty_database(database_url: str) -> None:
    found = status(database_url)
    assert found["counts"].pop("disk").split()[1] in ("kB", "MB")
    assert set(found["counts"].values()) == {0}
    assert {part: found[part] for part in PARTS} == {part: [] for part in PARTS}
    text = shown(database_url)
    assert text.startswith("0 chunks (0 with a docstring) at 0 places in 0 files of 0 sources")
    assert "Generations: none yet: run `pgembed reindex`" in text
    assert "Rejected" not in text


def test_a_filled_database(searchable: psycopg.Connection, database_url: str) -> None:
    found = status(database_url)
    assert {key: value for key, value in found["counts"].items() if key != "disk"} == {
        "sources": 1,
        "files": 3,
        "chunks": 6,
        "docstrings": 2,
        "locations": 6,
        "tokens": 6,
        "pairs": 0,
        "rejected": 0,
    }
    (source,) = found["sources"]
    assert (source["name"], source["files"], source["chunks"]) == ("here", 3, 6)
    (generation,) = found["generations"]
    assert (generation["state"], generation["row_count"], generation["error"]) == ("active", 6, None)
    text = shown(database_url)
    assert text.startswith("6 chunks (2 with a docstring) at 6 places in 3 files of 1 sources; 6 tokens")
    assert "active" in text
    assert "error" not in text  # a column that is empty throughout is left out


@pytest.fixture
def encoder_id(conn: psycopg.Connection) -> int:
    row = conn.execute(
        """INSERT INTO pgembed.encoders (name, spec, fingerprint, licence)
           VALUES ('base', '{}', 'x', 'MIT') RETURNING id"""
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_training_runs_newest_first_with_their_last_step(
    conn: psycopg.Connection, database_url: str, encoder_id: int
) -> None:
    for number in range(7):
        conn.execute(
            """INSERT INTO pgembed.training_runs
                   (state, view, seed, hyperparameters, data_fingerprint, base_encoder_id, package_version, error)
               VALUES ('failed', %s, 0, '{}', '', %s, '0', 'no more memory [/x]')""",
            (f"view{number}", encoder_id),
        )
    conn.execute(
        """INSERT INTO pgembed.training_metrics
           SELECT r.id, step, 1.0 / step, 0, 0, 0, 0 FROM pgembed.training_runs r, generate_series(1, 8) step
            WHERE view = 'view6'"""
    )
    runs = status(database_url)["training_runs"]
    assert [run["view"] for run in runs] == ["view6", "view5", "view4", "view3", "view2"]
    assert (runs[0]["last_step"], runs[0]["last_loss"]) == (8, 0.125)
    assert runs[1]["last_step"] is None
    assert "[/x]" in shown(database_url)


def test_rejected_input_by_reason_with_an_example(conn: psycopg.Connection, database_url: str) -> None:
    for path, reason in (("pages/[id].tsx", "too_large"), ("z.py", "too_large"), ("a\x1b[31m[/red].py", "nul_bytes")):
        conn.execute(
            "INSERT INTO pgembed.rejected_items (stage, path, reason) VALUES ('ingest', %s, %s)", (path, reason)
        )
    common = {"stage": "ingest", "outcome": "left out"}
    assert status(database_url)["rejected"] == [
        {**common, "reason": "too_large", "items": 2, "example": "pages/[id].tsx"},
        {**common, "reason": "nul_bytes", "items": 1, "example": "a\x1b[31m[/red].py"},
    ]
    text = shown(database_url)
    assert "pages/[id].tsx" in text
    assert r"a\x1b[31m[/red].py" in text
    assert "\x1b" not in text


def test_commands_at_work_now(database_url: str) -> None:
    with psycopg.connect(database_url):  # not one of ours
        assert status(database_url)["sessions"] == []
    with connect(database_url) as other, other.transaction():
        other.execute("SELECT 1")
        (session,) = status(database_url)["sessions"]
        assert session["pid"] == other.info.backend_pid
        assert session["state"] == "idle in transaction"
        assert session["in_transaction_for"] >= 0
        assert "Commands at work now" in shown(database_url)
