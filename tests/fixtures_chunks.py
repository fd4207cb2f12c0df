"""Chunks put in directly: what mining reads, without an ingest."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg


@dataclass(frozen=True)
class Chunk:
    """A function as a test states it."""

    tokens: frozenset[str]
    body: str
    path: str = "a.py"
    source: str = "here"
    docstring: str | None = None
    language: str = "python"
    line: int = 1
    kind: str = "function"
    lines: int = 5

    @property
    def sha256(self) -> bytes:
        return hashlib.sha256(f"{self.language}\0{self.kind}\0{self.body}{self.docstring}".encode()).digest()


def add_chunks(conn: psycopg.Connection, chunks: Sequence[Chunk]) -> dict[bytes, int]:
    """Insert the chunks in this order, their tokens in the order of their appearance; return ids by sha256."""
    words = list(dict.fromkeys(word for chunk in chunks for word in chunk.tokens))
    with conn.transaction(), conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO pgembed.tokens (token) SELECT w FROM unnest(%s::text[]) w ON CONFLICT DO NOTHING", (words,)
        )
        ids = dict(cursor.execute("SELECT token, id FROM pgembed.tokens").fetchall())
        for chunk in chunks:
            cursor.execute(
                "INSERT INTO pgembed.sources (name, root) VALUES (%s, '') ON CONFLICT DO NOTHING", (chunk.source,)
            )
            cursor.execute(
                """INSERT INTO pgembed.source_files (source_id, path, sha256, size_bytes, modified_ns, chunker)
                   SELECT id, %s, %s, 0, 0, 'test' FROM pgembed.sources WHERE name = %s ON CONFLICT DO NOTHING""",
                (chunk.path, bytes(32), chunk.source),
            )
            cursor.execute(
                """INSERT INTO pgembed.code_chunks
                       (sha256, language, kind, content, docstring, body, token_ids, line_count)
                   VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING""",
                (
                    chunk.sha256, chunk.language, chunk.kind, chunk.body, chunk.docstring, chunk.body,
                    sorted(ids[word] for word in chunk.tokens), chunk.lines,
                ),
            )  # fmt: skip
            cursor.execute(
                """INSERT INTO pgembed.chunk_locations (chunk_id, source_id, path, start_line, end_line)
                   SELECT c.id, s.id, %s, %s, %s FROM pgembed.code_chunks c, pgembed.sources s
                    WHERE c.sha256 = %s AND s.name = %s ON CONFLICT DO NOTHING""",
                (chunk.path, chunk.line, chunk.line + chunk.lines - 1, chunk.sha256, chunk.source),
            )
        return dict(cursor.execute("SELECT sha256, id FROM pgembed.code_chunks").fetchall())
