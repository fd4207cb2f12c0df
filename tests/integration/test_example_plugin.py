"""The example of docs/plugins.md, installed by pip as anybody's package is, and used by the whole path."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

EXAMPLE = Path(__file__).parents[1] / "example_plugin"
Run = Callable[..., str]

SETTINGS = """\
stray = before any section

# How often a call is tried.
; Exponential backoff.
[retry]
limit = 5
base_s = 0.1

[database]
host = localhost
port = 5432


[logging]
level = warning
"""
SECTIONS = {
    "retry": (3, 7, "How often a call is tried.\nExponential backoff."),
    "database": (9, 11, None),
    "logging": (14, 15, None),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip has installed the example into."""
    # a copy: setuptools leaves a build folder beside what it builds
    source = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("source") / "example")
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--target", str(target), str(source)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return target


def _runner(site: Path, home: Path) -> Run:
    environment = {**os.environ, "PYTHONPATH": str(site), "PGEMBED_HOME": str(home), "COLUMNS": "80"}

    def run(*arguments: object, code: int = 0) -> str:
        command = [sys.executable, "-m", "pgembed", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    return run


@pytest.fixture
def run(site: Path, tmp_path: Path) -> Run:
    """A function that runs `pgembed` where the example is installed."""
    return _runner(site, tmp_path / "home")


def test_listing_tells_where_it_comes_from(run: Run) -> None:
    rows = {row["name"]: row for row in json.loads(run("encoders", "--json"))}
    tiny = rows["example-tiny"]
    assert tiny["from"] == {
        "kind": "plugin", "distribution": "pgembed-example", "version": "1.2.0", "entry": "example-tiny",
    }  # fmt: skip
    assert tiny["at_hand"]
    assert [(tower["dimensions"], tower["max_tokens"]) for tower in tiny["towers"]] == [(16, 64)]
    assert "From pgembed-example 1.2.0\n" in run("encoders")


def test_ingest_export_reindex_and_search_work_with_it(
    run: Run, database_url: str, conn: psycopg.Connection, tmp_path: Path, site: Path
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "Settings.INI").write_text(SETTINGS)
    (code / "main.py").write_text("def main():\n    return read('settings.ini')\n")
    run("ingest", code, "--dsn", database_url)
    rows = conn.execute(
        "SELECT c.symbol, l.start_line, l.end_line, c.docstring, c.language, c.kind, c.content, f.chunker"
        "  FROM pgembed.code_chunks c JOIN pgembed.chunk_locations l ON l.chunk_id = c.id"
        "  JOIN pgembed.source_files f USING (source_id, path) WHERE path = 'Settings.INI' ORDER BY l.start_line"
    ).fetchall()
    assert {row[0]: row[1:4] for row in rows} == SECTIONS
    assert {row[4:6] + row[7:] for row in rows} == {("ini", "section", "example-ini/1")}
    lines = SETTINGS.split("\n")
    assert all(row[6] == "\n".join(lines[row[1] - 1 : row[2]]) for row in rows)

    told: dict[str, Any] = json.loads(run("export", "--encoder", "example-tiny", "--json"))
    assert told["parity"]["least_cosine"] > 0.9999
    result = json.loads(run("reindex", "--encoder", "example-tiny", "--activate", "--json", "--dsn", database_url))
    assert (result["encoder"], result["rows"], result["state"]) == ("example-tiny", 4, "active")
    # by meaning alone: it is the encoder that is under test, and a text's cosine with itself is known
    question = ("search", rows[1][6], "--mode", "vector", "--json", "--dsn", database_url)
    hits = json.loads(run(*question))
    assert (hits[0]["symbol"], hits[0]["path"], hits[0]["start_line"]) == ("database", "Settings.INI", 9)
    assert hits[0]["score"] == pytest.approx(1, abs=1e-5)
    assert len(hits) == 4

    # what is exported needs the package no more: broken, it stands in nobody's way but its own
    broken = tmp_path / "broken"
    shutil.copytree(site, broken)
    fault = "raise RuntimeError('half an upgrade')\n"
    leave_a_trace = "import pathlib\npathlib.Path(__file__).with_name('was_imported').touch()\n"
    (broken / "pgembed_example" / "encoder.py").write_text(leave_a_trace + fault)
    (broken / "pgembed_example" / "ini.py").write_text(fault)
    run_broken = _runner(broken, tmp_path / "home")
    assert json.loads(run_broken(*question)) == hits
    assert json.loads(run_broken("reindex", "--json", "--dsn", database_url))["embedded"] == 0
    was_imported = broken / "pgembed_example" / "was_imported"
    assert not was_imported.exists()
    listed = {(row["name"], row["from"]["kind"]): row for row in json.loads(run_broken("encoders", "--json"))}
    assert "half an upgrade" in listed["example-tiny", "plugin"]["why_not"]
    assert listed["example-tiny", "exported"]["at_hand"]
    assert listed["minilm", "built-in"]["at_hand"]
    assert was_imported.exists()
    told_why = run_broken("export", "--encoder", "example-tiny", "--out", tmp_path / "out", code=1)
    assert "pgembed-example 1.2.0" in told_why
    assert "half an upgrade" in told_why
    assert "half an upgrade" in run_broken("ingest", code, "--dsn", database_url, code=1)
