"""What differs between the schema in a database and the one that this version's migrations make.

Held against `sql/schema.sql`: bodies of functions, triggers, columns and indexes. Only what is missing or changed
counts; what somebody added beside it does no harm.
"""

import re
from dataclasses import dataclass
from functools import cache

import psycopg

from pgembed.db.sql import query, resource_text, resources

# a body in quotes is kept as it was written; one that begins with RETURN is kept parsed: only its being there counts
_FUNCTION = re.compile(
    r"^CREATE FUNCTION pgembed\.(?P<name>\w+)\([^;]*?\n    (?:AS (?P<mark>\$\w*\$)(?P<body>.*?)(?P=mark);|RETURN )",
    re.MULTILINE | re.DOTALL,
)
_TRIGGER = re.compile(r"^CREATE TRIGGER (?P<name>\w+) ", re.MULTILINE)
_INDEX = re.compile(r"^CREATE (?:UNIQUE )?INDEX (?P<name>\w+) ON ", re.MULTILINE)
_TABLE = re.compile(r"^CREATE TABLE pgembed\.(?P<name>\w+) \((?P<columns>.*?)^\)", re.MULTILINE | re.DOTALL)
_COLUMN = re.compile(r"^    (?P<name>[a-z_]+) ", re.MULTILINE)


@dataclass(frozen=True)
class Drift:
    """One thing that is not as it was made."""

    what: str
    file: str | None = None
    """The file that made it, under `sql/`; None where that is not one file."""


@dataclass(frozen=True)
class _Expected:
    functions: frozenset[tuple[str, str | None]]
    triggers: frozenset[str]
    indexes: frozenset[str]
    columns: frozenset[tuple[str, str]]


def find_drift(conn: psycopg.Connection) -> list[Drift]:
    """Return what is missing or changed, ordered by name; empty where all is as migrated."""
    expected = _expected()
    found = {
        kind: set(conn.execute(query(f"drift_{kind}"))) for kind in ("functions", "triggers", "indexes", "columns")
    }
    drift = []
    names = {name for name, _ in found["functions"]}
    for name in sorted({name for name, _ in expected.functions - found["functions"]}):
        drift.append(Drift(f"function {name} is {'changed' if name in names else 'missing'}", _maker(name)))
    enabled = {name for name, is_enabled in found["triggers"] if is_enabled}
    known = {name for name, _ in found["triggers"]}
    for name in sorted(expected.triggers - enabled):
        drift.append(Drift(f"trigger {name} is {'disabled' if name in known else 'missing'}"))
    drift += [Drift(f"index {name} is missing") for name in sorted(expected.indexes - {n for (n,) in found["indexes"]})]
    missing = sorted(expected.columns - found["columns"])
    return drift + [Drift(f"column {table}.{column} is missing") for table, column in missing]


@cache
def _expected() -> _Expected:
    text = resource_text("schema.sql")
    return _Expected(
        frozenset((match["name"], match["body"]) for match in _FUNCTION.finditer(text)),
        frozenset(match["name"] for match in _TRIGGER.finditer(text)),
        frozenset(match["name"] for match in _INDEX.finditer(text)),
        frozenset(
            (match["name"], column["name"])
            for match in _TABLE.finditer(text)
            for column in _COLUMN.finditer(match["columns"])
        ),
    )


def _maker(function: str) -> str | None:
    """Return the newest file that makes this function."""
    pattern = re.compile(rf"^CREATE (?:OR REPLACE )?FUNCTION {function}\(", re.MULTILINE)
    folder = resources() / "sql"
    made = [path for path in sorted(folder.glob("*/*.sql")) if pattern.search(path.read_text(encoding="utf-8"))]
    newest = max(made, key=lambda path: path.stem.rpartition(".v")[2], default=None)
    return None if newest is None else f"sql/{newest.relative_to(folder)}"
