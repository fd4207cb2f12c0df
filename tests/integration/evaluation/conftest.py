"""Chunks without an ingest: each with its split, as the rules of the held-out data set see them."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from pgembed.encoders.onnx_encoder import OnnxEncoder

AddChunk = Callable[..., int]


@pytest.fixture(scope="session")
def encoder(tiny_encoder: Path) -> OnnxEncoder:
    """The tiny random encoder, loaded."""
    return OnnxEncoder.load(tiny_encoder, threads=1)


@pytest.fixture
def add_chunk(conn: psycopg.Connection) -> AddChunk:
    """A function that stores a chunk, its place and its split, and returns its id."""
    source = conn.execute("INSERT INTO pgembed.sources (name, root) VALUES ('made-up', '/') RETURNING id").fetchone()
    assert source is not None

    def add(
        body: str,
        docstring: str | None = None,
        *,
        split: str | None = "test",
        path: str = "package/module.py",
        kind: str = "function",
        symbol: str = "",
        tokens: int = 9,
        lines: int = 3,
    ) -> int:
        content = body if docstring is None else f"# {docstring}\n{body}"
        row = conn.execute(
            "INSERT INTO pgembed.code_chunks"
            " (sha256, language, kind, symbol, content, docstring, body, token_ids, line_count)"
            " VALUES (%s, 'python', %s, %s, %s, %s, %s, %s, %s) RETURNING id",
            (
                hashlib.sha256(content.encode()).digest(),
                kind,
                symbol,
                content,
                docstring,
                body,
                [*range(tokens)],
                lines,
            ),
        ).fetchone()
        assert row is not None
        conn.execute(
            "INSERT INTO pgembed.source_files VALUES (%s, %s, sha256(''), 0, 0, 'python', 'none')"
            " ON CONFLICT DO NOTHING",
            (source[0], path),
        )
        conn.execute(
            "INSERT INTO pgembed.chunk_locations VALUES (%s, %s, %s, %s, %s)", (row[0], source[0], path, row[0], row[0])
        )
        conn.execute("INSERT INTO pgembed.chunk_splits VALUES (%s, sha256(%s), %s)", (row[0], content.encode(), split))
        return int(row[0])

    return add
