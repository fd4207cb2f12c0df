"""The SQL files: every query has a name and parses into one statement; the loader refuses what is not there."""

import re

import pytest

from pgembed.db.sql import query, resource_text, resources

_NAMES = [
    name
    for path in sorted((resources() / "sql" / "queries").glob("*.sql"))
    for name in re.findall(r"^-- name: (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize("name", _NAMES)
def test_each_query_is_one_statement(name: str) -> None:
    text = re.sub(r"\$\$.*?\$\$|'(?:[^']|'')*'|--[^\n]*", "", query(name), flags=re.DOTALL)
    assert len([part for part in text.split(";") if part.strip()]) == 1


def test_names_are_unique() -> None:
    assert len(_NAMES) == len(set(_NAMES))


def test_unknown_names_are_errors() -> None:
    with pytest.raises(KeyError):
        query("there_is_no_such_query")
    with pytest.raises(FileNotFoundError):
        resource_text("functions/there_is_no_such.v01.sql")
