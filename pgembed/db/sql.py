"""SQL files: found beside the package in a checkout, inside it in a wheel; named queries are read once."""

import re
from functools import cache
from pathlib import Path
from typing import LiteralString

_PACKAGE = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"^-- name: (?P<name>\w+)[^\n]*\n(?P<text>.*?)(?=^-- name: |\Z)", re.MULTILINE | re.DOTALL)


@cache
def resources() -> Path:
    """Return the folder that holds `sql/` and `alembic/`."""
    inside = _PACKAGE / "_resources"
    return inside if inside.is_dir() else _PACKAGE.parent


def resource_text(name: str) -> LiteralString:
    """Return the text of a file under `sql/`, such as `functions/jaccard_pairs.v01.sql`."""
    # A file of this package is as literal as a string in its code: no user's text is ever in it.
    text: LiteralString = (resources() / "sql" / name).read_text(encoding="utf-8")
    return text


@cache
def _queries() -> dict[str, LiteralString]:
    found: dict[str, LiteralString] = {}
    for path in sorted((resources() / "sql" / "queries").glob("*.sql")):
        for match in _BLOCK.finditer(path.read_text(encoding="utf-8")):
            name = match["name"]
            if name in found:
                raise ValueError(f"two queries are named {name!r}; the second is in {path}")
            found[name] = match["text"].strip()
    return found


def query(name: str) -> LiteralString:
    """Return the named query: the text below `-- name: <name>` in one of `sql/queries/*.sql`."""
    return _queries()[name]
