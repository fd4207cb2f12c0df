"""Every command and query that a page of `docs/` prints, run as printed."""

import re
import shlex
from pathlib import Path

import psycopg
import pytest
from fixtures_cli import pgembed

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "sh")], ids=lambda page: page.name)
def test_its_commands_run_as_printed(page: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGEMBED_DSN", database_url)
    for block in blocks(page, "sh"):
        for line in block.splitlines():
            program, *arguments = shlex.split(line)
            if program != "pgembed":
                continue  # pip and git, in the page on plugins: its own test goes that way
            outcome = pgembed(*arguments)
            assert outcome.code == 0, (line, outcome.stderr)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "sql")], ids=lambda page: page.name)
def test_its_queries_run_as_printed(page: Path, conn: psycopg.Connection, database_url: str) -> None:
    assert pgembed("db", "roles", "--dsn", database_url).code == 0
    for block in blocks(page, "sql"):
        assert conn.execute(block).fetchall() is not None, block  # type: ignore[call-overload]


def test_its_links_lead_somewhere() -> None:
    for page in [*PAGES, DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_roles_page_says_what_is_so(conn: psycopg.Connection, database_url: str) -> None:
    pgembed("db", "roles", "--dsn", database_url)
    (block,) = (block for block in blocks(DOCS / "operating.md", "sql") if "pgembed_reader" in block)
    rows = conn.execute(block).fetchall()  # type: ignore[call-overload]
    assert rows == [("pgembed_reader", True, False, False), ("pgembed_writer", True, True, False)]
