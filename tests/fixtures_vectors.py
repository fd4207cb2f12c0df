"""Encoders and chunks for tests of vectors: every vector follows from its text, so that NumPy knows it as well."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psycopg

from pgembed.encoders.artefact import Manifest
from pgembed.encoders.batching import Embedded
from pgembed.encoders.spec import EncoderSpec, Role, TowerSpec
from pgembed.encoders.windows import Long

_LATENT = 16  # dimensions that the vectors truly have: with 2,560, no list would be nearer than another


@dataclass(frozen=True)
class Code:
    """A chunk as a test states it: where its first word is another's first word, the two are near each other."""

    content: str
    language: str = "python"
    kind: str = "function"
    docstring: str | None = None
    places: tuple[tuple[str, str], ...] = (("here", "a.py"),)
    """(source, path) of each."""


class MadeUpEncoder:
    """Vectors around a centre that the text's first word names; a text with the word of `bad` gets that value."""

    def __init__(self, folder: Path, name: str = "made-up") -> None:
        self.manifest = Manifest(
            path=folder / name,
            spec=EncoderSpec(
                name=name,
                towers=(
                    TowerSpec(
                        name=name, weights=f"folder:{name}", dimensions=2560, slot=2560, pooling="mean", causal=False,
                        max_tokens=512,
                    ),
                ),
            ),
            fingerprint=hashlib.sha256(name.encode()).hexdigest(),
            files={"model.onnx": hashlib.sha256(f"{name} graph".encode()).hexdigest()},
            parity={},
            producer={},
        )  # fmt: skip
        self.bad: dict[str, float] = {}
        self.asked: list[str] = []
        """Texts that it has embedded as passages."""
        self.long: Long = "truncate"
        """What it was last asked to do with long passages."""
        self.reads: int | None = None
        """Words that it reads of a text; what comes later changes nothing."""
        self.during: Callable[[], None] | None = None
        """Called at each batch of passages, before it is embedded."""
        self._projection = self._random("projection", _LATENT * 2560).reshape(_LATENT, 2560)

    def embed_each(self, texts: Sequence[str], *, role: Role, long: Long = "truncate") -> Embedded:
        if role == "passage":
            if self.during is not None:
                self.during()
            self.asked += texts
            self.long = long
        longer = [n for n, text in enumerate(texts) if self.reads is not None and len(text.split()) > self.reads]
        return Embedded(np.stack([self.vector(text) for text in texts]), {}, longer)

    def embed(self, texts: Sequence[str], *, role: Role) -> npt.NDArray[np.float32]:
        return self.embed_each(texts, role=role).vectors

    def vector(self, text: str) -> npt.NDArray[np.float32]:
        words = text.split()
        for word, value in self.bad.items():
            if word in words:
                return np.full(2560, value, dtype=np.float32)
        read = text if self.reads is None else " ".join(words[: self.reads])
        latent = 0.7 * self._random(words[0], _LATENT) + self._random(read, _LATENT)
        vector = latent @ self._projection
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    def _random(self, text: str, count: int) -> npt.NDArray[np.float64]:
        digest = hashlib.sha256(f"{self.manifest.spec.name}\0{text}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8])).standard_normal(count)


@dataclass(frozen=True)
class Library:
    """A database to read from, and all that is in it as NumPy knows it."""

    url: str
    encoder: MadeUpEncoder
    code: dict[int, Code]
    """What was put in, by id."""
    ids: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float64]
    """(N, 2560), in the order of `ids`."""
    generations: dict[str, int]
    """By index method; ivfflat's is active."""

    def nearest(
        self, query: npt.NDArray[np.float32], k: int, keep: npt.NDArray[np.bool_] | None = None
    ) -> list[tuple[int, float]]:
        """Return ids and scores by brute force, best first, of the rows in `keep`."""
        scores = self.vectors @ query.astype(np.float64)
        best = np.argsort(-scores)
        if keep is not None:
            best = best[keep[best]]
        return [(int(self.ids[n]), float(scores[n])) for n in best[:k]]


def add_code(conn: psycopg.Connection, code: Iterable[Code | str]) -> list[int]:
    """Insert chunks with their places; return their ids in the same order."""
    chunks = [one if isinstance(one, Code) else Code(one) for one in code]
    digests = [hashlib.sha256(f"{c.language}\0{c.kind}\0{c.content}".encode()).digest() for c in chunks]
    places = [(n, source, path) for n, c in enumerate(chunks) for source, path in c.places]
    with conn.transaction():
        conn.execute(
            "INSERT INTO pgembed.code_chunks (sha256, language, kind, content, docstring, body, token_ids, line_count)"
            " SELECT s, l, k, c, d, c, '{}', 1"
            "   FROM unnest(%s::bytea[], %s::text[], %s::text[], %s::text[], %s::text[]) AS given (s, l, k, c, d)",
            (
                digests,
                [c.language for c in chunks],
                [c.kind for c in chunks],
                [c.content for c in chunks],
                [c.docstring for c in chunks],
            ),
        )
        known = dict(conn.execute("SELECT sha256, id FROM pgembed.code_chunks").fetchall())
        ids = [known[digest] for digest in digests]
        conn.execute(
            "INSERT INTO pgembed.sources (name, root) SELECT DISTINCT s, '' FROM unnest(%s::text[]) s"
            " ON CONFLICT DO NOTHING",
            ([source for _, source, _ in places],),
        )
        given = [ids[n] for n, _, _ in places], [source for _, source, _ in places], [path for _, _, path in places]
        conn.execute(
            "INSERT INTO pgembed.source_files (source_id, path, sha256, size_bytes, modified_ns, chunker)"
            " SELECT DISTINCT s.id, p, sha256(''), 0, 0, 'test' FROM unnest(%s::text[], %s::text[]) AS given (n, p)"
            "   JOIN pgembed.sources s ON s.name = n ON CONFLICT DO NOTHING",
            given[1:],
        )
        conn.execute(
            "INSERT INTO pgembed.chunk_locations (chunk_id, source_id, path, start_line, end_line)"
            " SELECT c, s.id, p, c, c FROM unnest(%s::bigint[], %s::text[], %s::text[]) AS given (c, n, p)"
            "   JOIN pgembed.sources s ON s.name = n",
            given,
        )
    return ids


def numbered_texts(count: int, start: int = 0) -> list[str]:
    """Return texts of seven topics, no two alike."""
    return [f"topic{n % 7} code {n}" for n in range(start, start + count)]


def rows_so_far(conn: psycopg.Connection) -> int:
    """Return how many vectors generation 1 has; 0 where its table is not there yet."""
    if conn.execute("SELECT to_regclass('pgembed.code_embeddings_1')").fetchone() == (None,):
        return 0
    row = conn.execute("SELECT count(*) FROM pgembed.code_embeddings_1").fetchone()
    return 0 if row is None else int(row[0])


def stored_vectors(conn: psycopg.Connection, generation_id: int) -> dict[int, npt.NDArray[np.float32]]:
    """Read a generation's vectors by a plain SELECT; fails where a chunk has two."""
    rows = conn.execute(
        f"SELECT chunk_id, embedding FROM pgembed.code_embeddings_{generation_id} WHERE generation_id = %s",
        (generation_id,),
    ).fetchall()
    found = {row[0]: row[1].to_numpy() for row in rows}
    assert len(found) == len(rows)
    return found


def assert_complete(
    conn: psycopg.Connection, generation_id: int, encoder: MadeUpEncoder, *, without: Iterable[int] = ()
) -> None:
    """Assert that each live chunk has one vector, its own, but for those in `without`."""
    contents = dict(conn.execute("SELECT id, content FROM pgembed.code_chunks").fetchall())
    found = stored_vectors(conn, generation_id)
    assert found.keys() == contents.keys() - set(without)
    for chunk_id, vector in found.items():
        assert np.array_equal(vector, encoder.vector(contents[chunk_id]))
