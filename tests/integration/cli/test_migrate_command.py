"""`pgembed migrate` as a person runs it; what it does to a database is in tests/migration."""

import json
from typing import Any

import psycopg
import pytest
from fixtures_cli import pgembed

from pgembed.db.migrations import offline_script, revisions
from pgembed_code.installation import upgrade_advice


def revision(dsn: str) -> str | None:
    """Return where the database stands; None without a schema."""
    with psycopg.connect(dsn) as connection:
        if connection.execute("SELECT to_regclass('pgembed.alembic_version')").fetchone() == (None,):
            return None
        row = connection.execute("SELECT version_num FROM pgembed.alembic_version").fetchone()
        return None if row is None else str(row[0])


def test_up_and_down_for_a_script(empty_database_url: str) -> None:
    def migrate(*arguments: str) -> Any:
        outcome = pgembed("migrate", "--json", "--dsn", empty_database_url, *arguments)
        assert (outcome.code, outcome.stderr) == (0, "")
        return json.loads(outcome.stdout)

    first, *later = revisions()
    assert migrate("--to", first) == {"direction": "up", "revisions": [first]}
    assert migrate() == {"direction": "up", "revisions": later}
    assert migrate() == {"direction": "up", "revisions": []}
    assert migrate("--down", first) == {"direction": "down", "revisions": later[::-1]}
    assert revision(empty_database_url) == first
    down = migrate("--down", "base")
    left = down.pop("left")
    assert down == {"direction": "down", "revisions": [first]}
    # and roles, where another test has made them on this server
    assert [what for what in left if not what.startswith("the roles pgembed_")] == ["the extension vector"]
    assert revision(empty_database_url) is None
    assert migrate("--down", "base") == {"direction": "down", "revisions": [], "left": left}


def test_down_for_a_person(database_url: str) -> None:
    outcome = pgembed("migrate", "--down", "base", "--dsn", database_url)
    assert outcome.stdout.startswith(
        f"Undone: {', '.join(reversed(revisions()))}\nLeft in place: the extension vector\n"
    )
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT to_regnamespace('pgembed')").fetchone() == (None,)


def test_down_to_where_the_database_has_not_come_does_nothing(empty_database_url: str) -> None:
    first, *_, last = revisions()
    pgembed("migrate", "--to", first, "--dsn", empty_database_url)
    for target in (first, last):
        outcome = pgembed("migrate", "--down", target, "--dsn", empty_database_url)
        assert (outcome.code, outcome.stderr) == (0, "")
        assert "nothing was done" in outcome.stdout
        assert revision(empty_database_url) == first


@pytest.mark.parametrize("direction", [[], ["--down", "base"]], ids=["up", "down"])
def test_a_newer_database_is_refused_with_both_revisions(
    conn: psycopg.Connection, database_url: str, direction: list[str]
) -> None:
    conn.execute("UPDATE pgembed.alembic_version SET version_num = '9999'")
    outcome = pgembed("migrate", "--dsn", database_url, *direction)
    assert (outcome.code, outcome.stdout) == (1, "")
    assert "9999" in outcome.stderr
    assert revisions()[-1] in outcome.stderr
    assert upgrade_advice() in outcome.stderr
    assert revision(database_url) == "9999"


def test_the_script_is_printed_without_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    # that it makes the same schema is in tests/migration
    monkeypatch.setenv("PGEMBED_DSN", "postgresql://nobody@127.0.0.1:1/nowhere")
    outcome = pgembed("migrate", "--sql")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.stdout.strip() == offline_script().strip()
    part = pgembed("migrate", "--sql", "--to", revisions()[0]).stdout
    assert part.strip() == offline_script(revisions()[0]).strip()
    assert len(part) < len(outcome.stdout)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--down", "0815"],
        ["--down", "head"],
        ["--to", "base"],
        ["--sql", "--down", "base"],
        ["--to", "0001", "--down", "base"],
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_wrong_usage_and_touches_nothing(database_url: str, arguments: list[str]) -> None:
    outcome = pgembed("migrate", "--dsn", database_url, *arguments)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert revision(database_url) == revisions()[-1]
