"""Search by example: the chunk that stands at a line of a file, and the vector that a generation has of it.

Reads `chunk_locations`, `code_chunks`, `sources`, `code_embeddings`; needs no encoder.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from pgembed.db.sql import query
from pgembed.errors import SearchError
from pgembed.vectors.generations import Generation
from pgembed.vectors.question import Question

Connection = psycopg.Connection[Any]

_PLACE = re.compile(r"(?P<path>.+):(?P<line>\d{1,9})", re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A chunk at one of its places."""

    chunk_id: int
    source: str
    path: str
    start_line: int
    end_line: int
    symbol: str


def example_at(conn: Connection, place: str, source: str | None = None) -> Example:
    """Return the innermost chunk at `place`, written `path:line`; the path may be the end of the stored one.

    Where files of several sources are meant, the one of `source` is.

    Raises:
        SearchError: `place` is written otherwise, nothing stands there, or several files are meant; the message
            offers what is nearest.
    """
    parts = _PLACE.fullmatch(place)
    if parts is None or "\0" in place or any("\ud800" <= c <= "\udfff" for c in place):
        raise SearchError(
            f"{place[:100]!r} is not a place in a file.", remedy="Write path:line, such as src/shop/cart.py:42."
        )
    path = parts["path"].removeprefix("./").rstrip("/")
    asked = {"path": path, "line": int(parts["line"])}
    found = [Example(*row) for row in conn.execute(query("chunks_at_place"), asked)]
    found = [example for example in found if example.path == path] or found
    found = [example for example in found if example.source == source] or found
    innermost = {(example.source, example.path): example for example in reversed(found)}
    if len({example.chunk_id for example in innermost.values()}) == 1:
        return found[0]  # one file, or several with the same code there
    if files := innermost.keys():
        listed = ", ".join(f"{name}: {file}" for name, file in sorted(files)[:5])
        raise SearchError(
            f"{place} may be a place in {len(files)} files: {listed}.",
            remedy="Write more of the path, or give --source.",
        )
    name = path.rsplit("/", 1)[-1]
    near = conn.execute(query("chunks_near_place"), {**asked, "name": name}).fetchall()
    nearest = "; ".join(f"{file}:{first}-{last} {symbol} [{origin}]" for origin, file, first, last, symbol in near)
    raise SearchError(
        f"No chunk stands at {place}.",
        remedy=f"The nearest are {nearest}." if nearest else f"No file called {name} is ingested: pgembed ingest PATH.",
    )


def by_example(conn: Connection, question: Question, example: Example, generation: Generation) -> Question:
    """Return `question` for what is like `example`: by its stored vector, without itself and its near-duplicates.

    Raises:
        SearchError: the generation has no vector of it, or a filter cannot be stored as text.
    """
    question.check()
    parameters = {"generation_id": generation.id, "chunk_id": example.chunk_id}
    row = conn.execute(query("stored_vector"), parameters, binary=True).fetchone()
    if row is None:
        raise SearchError(
            f"Generation {generation.id} has no vector of {example.symbol or example.path}.",
            remedy="Embed what is missing: pgembed reindex",
        )
    return replace(question, query=row[0].to_numpy(), generation_id=generation.id, example=example.chunk_id)
