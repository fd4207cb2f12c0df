"""Real code with words, look-alike pairs and made-up vectors, shared by the tests of search that only read."""

import email
import fnmatch
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from fixtures_vectors import MadeUpEncoder
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgembed.corpus.ingest import ingest
from pgembed.db.connection import connect
from pgembed.db.embedded import EmbeddedServer
from pgembed.db.migrations import upgrade
from pgembed.mining.pairs import find_pairs
from pgembed.tokens import tokens
from pgembed.vectors.reindex import reindex_with


@dataclass(frozen=True)
class Stored:
    """A chunk as the database has it, with all its places."""

    language: str
    kind: str
    symbol: str
    content: str
    docstring: str | None
    body: str
    places: list[tuple[str, str, int, int, str]]
    """Source, path, first and last line, qualified symbol."""


@dataclass(frozen=True)
class CodeBase:
    """The standard library's `email` and `json`, and a copy of one file with small changes."""

    url: str
    encoder: MadeUpEncoder
    code: dict[int, Stored]
    words: dict[int, frozenset[str]]
    """By chunk: the tokens of its body, docstring and symbol."""
    copies: dict[frozenset[int], float]
    """Jaccard of the pairs that count as near-duplicates."""

    def passes(self, chunk_id: int, **filters: str) -> bool:
        """Tell whether a chunk passes the filters of a search."""
        code = self.code[chunk_id]
        glob = filters.get("path", "*").rstrip("/")
        return (
            filters.get("language", code.language) == code.language
            and filters.get("kind", code.kind) == code.kind
            and any(
                filters.get("source", source) == source
                and (fnmatch.fnmatchcase(path, glob) or fnmatch.fnmatchcase(path, f"{glob}/*"))
                for source, path, *_ in code.places
            )
        )


@pytest.fixture(scope="session")
def base(embedded_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CodeBase]:
    """Some 900 chunks, ingested, paired and embedded under an IVFFLAT index. Write nothing into it that stays."""
    server = make_conninfo(host=str(embedded_server.socket_dir), user="postgres")
    url = make_conninfo(server, dbname="code_base")
    drop = sql.SQL("DROP DATABASE IF EXISTS code_base WITH (FORCE)")
    changed = tmp_path_factory.mktemp("changed")
    # a fork of two files: most of their functions that return something are near-duplicates
    for name in ("message.py", "header.py"):
        text = (Path(email.__file__).parent / name).read_text(encoding="utf-8")
        (changed / name).write_text(text.replace("return ", "return forked or "), encoding="utf-8")
    with psycopg.connect(server, dbname="postgres", autocommit=True) as maintenance:
        maintenance.execute(drop)
        maintenance.execute("CREATE DATABASE code_base")
        upgrade(url)
        with connect(url) as conn:
            ingest(conn, Path(email.__file__).parent, name="email")
            ingest(conn, Path(json.__file__).parent, name="json")
            ingest(conn, changed, name="fork")
            find_pairs(conn)
        encoder = MadeUpEncoder(tmp_path_factory.mktemp("encoder"))
        reindex_with(url, encoder, activate=True)
        with connect(url) as conn:
            yield _read(conn, url, encoder)
        maintenance.execute(drop)


@pytest.fixture
def base_conn(base: CodeBase) -> Iterator[psycopg.Connection]:
    """An autocommitting connection to the code base."""
    with connect(base.url, vectors=True) as connection:
        yield connection


def _read(conn: psycopg.Connection, url: str, encoder: MadeUpEncoder) -> CodeBase:
    places: dict[int, list[tuple[str, str, int, int, str]]] = {}
    for chunk_id, *place in conn.execute(
        "SELECT l.chunk_id, s.name, l.path, l.start_line, l.end_line, l.symbol"
        "  FROM pgembed.chunk_locations l JOIN pgembed.sources s ON s.id = l.source_id"
    ):
        places.setdefault(chunk_id, []).append(tuple(place))
    rows = conn.execute("SELECT id, language, kind, symbol, content, docstring, body FROM pgembed.code_chunks")
    code = {row[0]: Stored(*row[1:], sorted(places[row[0]])) for row in rows}
    words = {i: tokens(c.body) | tokens(c.docstring or "") | tokens(c.symbol) for i, c in code.items()}
    pairs = conn.execute("SELECT chunk_a, chunk_b, jaccard FROM pgembed.candidate_pairs WHERE jaccard >= 0.8")
    return CodeBase(url, encoder, code, words, {frozenset((a, b)): jaccard for a, b, jaccard in pairs})
