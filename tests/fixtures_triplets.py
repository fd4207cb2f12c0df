"""A corpus to mine, and mining's rules once more: written from their description, without SQL, over all pairs."""

import hashlib
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import numpy.typing as npt
import psycopg
import pytest
from fixtures_chunks import Chunk
from fixtures_vectors import MadeUpEncoder
from psycopg.rows import dict_row

from pgembed.mining.pairs import find_pairs
from pgembed.mining.triplets import refresh_triplets
from pgembed.vectors.reindex import reindex_with

WORDS = [f"w{a}{b}" for a in "abcdefghij" for b in "abcdefghijklmnopqrst"]
MIN_JACCARD = 0.4

Vectors = Mapping[bytes, npt.NDArray[np.float32]]


def corpus(seed: int = 7, count: int = 260) -> list[Chunk]:
    """Functions in some files: copies, look-alikes and strangers, most with a docstring, some standing twice."""
    chance = random.Random(seed)  # noqa: S311 - a repeatable sample
    centres = [frozenset(chance.sample(WORDS, 16)) for _ in range(count // 6)]
    chunks = []
    for number in range(count):
        tokens = chance.choice(centres) ^ frozenset(chance.sample(WORDS, chance.randrange(9)))
        if number % 5 == 0:  # a stranger
            tokens = frozenset(chance.sample(WORDS, 16))
        docstring = f"Describe what number {number % 230} does here.\n\nMore {number}." if number % 4 else None
        chunk = Chunk(
            tokens=tokens,
            body=f"def f{number}():\n    return " + " + ".join(sorted(tokens)),
            path=f"dir{number % 7}/file{number % 29}.py",
            docstring=docstring,
            language="go" if number % 11 == 0 else "python",
            line=1 + number * 3,
            lines=3 + number % 9,
        )
        chunks.append(chunk)
        if number % 17 == 0:  # the same code in another file
            chunks.append(replace(chunk, path=f"elsewhere/file{number}.py"))
    return chunks


def mine(conn: psycopg.Connection) -> None:
    """Find the pairs and make the triplets."""
    find_pairs(conn, min_jaccard=MIN_JACCARD)
    refresh_triplets(conn)


def rows(conn: psycopg.Connection, view: str = "triplets") -> list[dict[str, object]]:
    """Return all rows of a view of triplets, in their order."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(f"SELECT * FROM pgembed.{view} ORDER BY ordinal").fetchall()


def activate_vectors(conn: psycopg.Connection, dsn: str, encoder: MadeUpEncoder) -> int:
    """Embed every chunk that has no vector yet, and let the generation be the active one; return its number."""
    generation = reindex_with(dsn, encoder).generation_id
    conn.execute("UPDATE pgembed.generations SET state = 'retired' WHERE state = 'active' AND id <> %s", (generation,))
    conn.execute("UPDATE pgembed.generations SET state = 'active' WHERE id = %s", (generation,))
    conn.execute(
        "INSERT INTO pgembed.active_generation (generation_id) VALUES (%s)"
        " ON CONFLICT (only_row) DO UPDATE SET generation_id = excluded.generation_id",
        (generation,),
    )
    return generation


def jaccard(a: Chunk, b: Chunk) -> float:
    return len(a.tokens & b.tokens) / len(a.tokens | b.tokens)


@dataclass(frozen=True)
class Row:
    """A triplet as the rules give it; chunks by their sha256."""

    kind: str
    split: str
    anchor: bytes
    positive: bytes
    negative: bytes
    positive_jaccard: float
    negative_jaccard: float
    rule: str
    text: str | None
    positive_score: float | None
    negative_score: float | None


class Rules:
    """Mining by brute force."""

    def __init__(self, places: Sequence[Chunk], settings: Mapping[str, float], vectors: Vectors | None = None) -> None:
        self.settings = settings
        self.vectors = vectors
        self.places = places
        self.chunks = {chunk.sha256: chunk for chunk in places}
        self.salt = f"{int(settings['seed'])}/".encode()
        self.compared = {
            key for key, chunk in self.chunks.items() if len(chunk.tokens) >= settings["pairs_min_tokens"]
        }  # fmt: skip
        self.similarity = {
            a: {b: jaccard(self.chunks[a], self.chunks[b]) for b in self.compared if a != b} for a in self.compared
        }
        self.splits = self._splits()
        self.eligible = {key for key, chunk in self.chunks.items() if self.splits[key] and self._is_usable(chunk)}
        self.anchors = {key: text for key in self.eligible if (text := self._anchor(self.chunks[key]))}

    # ------------------------------------------------------------------ splits

    def split_of_file(self, source: str, path: str) -> str:
        digest = hashlib.sha256(f"{int(self.settings['seed'])}/{source}/{path}".encode()).digest()
        at = int.from_bytes(digest[:4]) / 2**32
        if at < self.settings["train_share"]:
            return "train"
        return "validation" if at < self.settings["train_share"] + self.settings["validation_share"] else "test"

    def clusters(self) -> list[set[bytes]]:
        """Return the connected components of near-duplicates."""
        left, found = set(self.chunks), []
        while left:
            cluster, edge = set(), {left.pop()}
            while edge:
                cluster |= edge
                edge = {
                    b
                    for a in edge & self.compared
                    for b, value in self.similarity[a].items()
                    if value >= self.settings["near_duplicate"]
                } - cluster
            left -= cluster
            found.append(cluster)
        return found

    def _splits(self) -> dict[bytes, str | None]:
        of_files: dict[bytes, set[str]] = {}
        for place in self.places:
            of_files.setdefault(place.sha256, set()).add(self.split_of_file(place.source, place.path))
        splits: dict[bytes, str | None] = {}
        for cluster in self.clusters():
            placed = {next(iter(of_files[key])) for key in cluster if len(of_files[key]) == 1}
            first = next((split for split in ("train", "validation", "test") if split in placed), None)
            for key in cluster:
                splits[key] = first if of_files[key] == {first} and key in self.compared else None
        return splits

    # ------------------------------------------------------------------ filters

    def _is_usable(self, chunk: Chunk) -> bool:
        s = self.settings
        return (
            s["min_tokens"] <= len(chunk.tokens) <= s["max_tokens"] and s["min_lines"] <= chunk.lines <= s["max_lines"]
        )

    def _anchor(self, chunk: Chunk) -> str | None:
        paragraph = re.split(r"\n[ \t\r]*\n", (chunk.docstring or "").strip(" \t\r\n"))[0]
        words = re.findall(r"\S+\s*", paragraph)
        if len(words) < self.settings["min_docstring_words"]:
            return None
        return "".join(words[: int(self.settings["max_anchor_words"])]).rstrip()

    def _says(self, key: bytes) -> str | None:
        return " ".join(re.findall(r"\w+", self.anchors[key].lower())) if key in self.anchors else None

    def _is_alike(self, a: bytes, b: bytes) -> bool:
        one, other = self.chunks[a], self.chunks[b]
        return one.language == other.language and self.splits[a] == self.splits[b]

    def _is_like_length(self, to: bytes, key: bytes) -> bool:
        n, ratio = len(self.chunks[to].tokens), self.settings["length_ratio"]
        return n / ratio <= len(self.chunks[key].tokens) <= n * ratio

    # ------------------------------------------------------------------ candidates

    def _slots(self) -> dict[bytes, tuple[list[bytes], int]]:
        def group(key: bytes) -> tuple[str, str]:
            return self.chunks[key].language, str(self.splits[key])

        found = {}
        for _, members in groupby(sorted(self.eligible, key=group), key=group):
            ordered = sorted(
                members, key=lambda key: (len(self.chunks[key].tokens), hashlib.sha256(self.salt + key).digest())
            )
            found |= {key: (ordered, at) for at, key in enumerate(ordered)}
        return found

    def _tried(self) -> dict[bytes, dict[bytes, int]]:
        """Return for each anchor what is tried with it, and the first source that gave it."""
        limit, slots = self.settings["near_duplicate"], self._slots()
        tried: dict[bytes, dict[bytes, int]] = {key: {} for key in self.eligible}

        def add(anchor: bytes, key: bytes, source: int) -> None:
            if self.similarity[anchor][key] < limit:
                tried[anchor][key] = min(source, tried[anchor].get(key, source))

        for anchor in self.eligible:
            for key, value in self.similarity[anchor].items():
                if key in self.eligible and self._is_alike(anchor, key) and value >= MIN_JACCARD:
                    add(anchor, key, 1)
            at_home: dict[tuple[str, str], list[tuple[int, int, bytes]]] = {}
            for a in (place for place in self.places if place.sha256 == anchor):
                for b in (place for place in self.places if (place.source, place.path) == (a.source, a.path)):
                    key = b.sha256
                    if key == anchor or key not in self.eligible or not self._is_alike(anchor, key):
                        continue
                    if self._is_like_length(anchor, key):
                        at_home.setdefault((a.source, a.path), []).append((abs(a.line - b.line), b.line, key))
            for near in at_home.values():
                for _, _, key in sorted(near)[: int(self.settings["same_file_candidates"])]:
                    add(anchor, key, 2)
            ordered, at = slots[anchor]
            count = int(self.settings["like_length_candidates"])
            for step in range(-(count // 2), (count + 1) // 2 + 1):
                if step and 0 <= at + step < len(ordered) and self._is_like_length(anchor, ordered[at + step]):
                    add(anchor, ordered[at + step], 3)
            if self._uses_vectors and anchor in self.anchors:
                for key in self._near_in_meaning(anchor, slots):
                    add(anchor, key, 4)
        return tried

    # ------------------------------------------------------------------ vectors

    @property
    def _uses_vectors(self) -> bool:
        return self.settings["use_vectors"] == 1

    def score(self, a: bytes, b: bytes) -> float | None:
        if not self._uses_vectors or self.vectors is None or a not in self.vectors or b not in self.vectors:
            return None
        one, other = self.vectors[a].astype(np.float64), self.vectors[b].astype(np.float64)
        return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    def _near_in_meaning(self, anchor: bytes, slots: Mapping[bytes, tuple[list[bytes], int]]) -> Iterable[bytes]:
        assert self.vectors is not None
        if anchor not in self.vectors:
            return []
        most = int(self.settings["vector_candidates"])
        bits = {key: self.vectors[key] > 0 for key in slots[anchor][0] if key in self.vectors}
        others = [key for key in bits if key != anchor and self._is_like_length(anchor, key)]
        others.sort(key=lambda key: (int((bits[key] != bits[anchor]).sum()), slots[key][1]))
        return sorted(others[: 4 * most], key=lambda key: (-(self.score(anchor, key) or 0.0), key))[:most]

    # ------------------------------------------------------------------ triplets

    def triplets(self) -> list[Row]:
        """Return all triplets in the order of their ordinals."""
        tried, found = self._tried(), []
        for anchor in self.eligible:
            found += self._of_docstring(anchor, tried[anchor])
            found += self._of_code(anchor, tried[anchor])
        return sorted(
            found,
            key=lambda r: hashlib.sha256(self.salt + r.anchor + r.positive + r.negative + r.kind.encode()).digest(),
        )

    def _of_docstring(self, anchor: bytes, tried: Mapping[bytes, int]) -> list[Row]:
        if anchor not in self.anchors:
            return []
        similarity = self.similarity[anchor]
        good = []
        for key in tried:
            score = self.score(anchor, key)
            is_false = score is not None and score > self.settings["false_negative_ceiling"]
            if self._says(key) != self._says(anchor) and self._is_like_length(anchor, key) and not is_false:
                good.append((score is None, -(score or 0.0), -similarity[key], key, score))
        names = ("look-alike", "same file", "like length", "near in meaning")
        return [
            Row(
                "docstring", str(self.splits[anchor]), anchor, anchor, key, 1.0, similarity[key],
                f"docstring / {names[tried[key] - 1]}", self.anchors[anchor], None if score is None else 1.0, score,
            )
            for _, _, _, key, score in sorted(good)[: int(self.settings["docstring_negatives"])]
        ]  # fmt: skip

    def _of_code(self, anchor: bytes, tried: Mapping[bytes, int]) -> list[Row]:
        similarity, s = self.similarity[anchor], self.settings
        positives = sorted(
            (-similarity[key], key)
            for key, source in tried.items()
            if source == 1 and similarity[key] >= s["code_positive_min"]
        )
        found = []
        for place, (_, positive) in enumerate(positives[: int(s["code_positives"])]):
            reference = self.score(anchor, positive)
            good = []
            for key, source in tried.items():
                score = self.score(anchor, key)
                is_scored = score is not None and reference is not None
                if is_scored and score > reference - s["false_negative_margin"] * abs(reference):
                    continue
                says = {self._says(anchor), self._says(positive)} - {None}
                if source == 4 or similarity[key] > s["code_negative_max"] or self._says(key) in says:
                    continue
                if self.similarity[positive].get(key, 1.0) < s["near_duplicate"] and self._is_like_length(
                    positive, key
                ):
                    good.append((-similarity[key], key))
            if place < len(good):
                _, key = sorted(good)[place]
                found.append(
                    Row(
                        "code", str(self.splits[anchor]), anchor, positive, key, similarity[positive], similarity[key],
                        "look-alike / shares little", None, reference, self.score(anchor, key),
                    )
                )  # fmt: skip
        return found


def settings_of(conn: psycopg.Connection) -> dict[str, float]:
    return dict(conn.execute("SELECT name, value FROM pgembed.mining_settings").fetchall())


def stored(conn: psycopg.Connection) -> list[Row]:
    """Return the triplets of the database, to be compared with the rules'."""
    found = conn.execute(
        """SELECT t.kind, t.split, a.sha256, p.sha256, n.sha256, t.positive_jaccard, t.negative_jaccard, t.rule,
                  t.anchor, t.positive_score, t.negative_score
             FROM pgembed.triplet_candidates t JOIN pgembed.code_chunks a ON a.id = t.anchor_id
             JOIN pgembed.code_chunks p ON p.id = t.positive_id JOIN pgembed.code_chunks n ON n.id = t.negative_id
            ORDER BY t.ordinal"""
    ).fetchall()
    return [Row(*row) for row in found]


def assert_same(found: Sequence[Row], expected: Sequence[Row]) -> None:
    """Assert that two lists are equal, but for the last digits of scores: the server adds in single precision."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert replace(one, positive_score=None, negative_score=None) == replace(
            other, positive_score=None, negative_score=None
        )
        assert (one.positive_score, one.negative_score) == (
            pytest.approx(other.positive_score, abs=1e-5),
            pytest.approx(other.negative_score, abs=1e-5),
        )
