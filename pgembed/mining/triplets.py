"""Triplets: anchor, positive, negative, each with the reason why it is there. Thin calls of the SQL.

Writes `chunk_splits` and `triplet_candidates`; people read the views `triplets`, `triplets_code`, `triplets_docstring`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from pgembed.db.sql import query
from pgembed.progress import SILENT, Progress


@dataclass(frozen=True)
class Triplet:
    """A row of the view."""

    kind: str
    split: str
    language: str
    rule: str
    positive_jaccard: float
    negative_jaccard: float
    anchor: str
    positive: str
    negative: str
    anchor_id: int
    positive_id: int
    negative_id: int


@dataclass(frozen=True)
class Count:
    """How many triplets there are of one kind, split, language and rule."""

    kind: str
    split: str
    language: str
    rule: str
    triplets: int
    anchors: int
    positive_jaccard: float
    negative_jaccard: float


def refresh_triplets(conn: psycopg.Connection, progress: Progress = SILENT) -> int:
    """Rebuild splits and triplets from pairs and settings, in one transaction; return how many triplets there are."""
    progress.say("choosing splits and triplets")
    with conn.transaction():
        row = conn.execute(query("refresh_triplets")).fetchone()
    assert row is not None  # noqa: S101 - a function's result is a row
    return int(row[0])


def held_out_paths(conn: psycopg.Connection, source: str, paths: Iterable[str]) -> set[str]:
    """Return those of the `paths` of a source whose code is in the test split, whether they were ingested or not."""
    return {row[0] for row in conn.execute(query("held_out_paths"), {"source": source, "paths": list(paths)})}


def are_stale(conn: psycopg.Connection) -> bool:
    """Whether chunks have come since the triplets were made."""
    row = conn.execute(query("triplets_are_stale")).fetchone()
    return row is not None and bool(row[0])


def sample(
    conn: psycopg.Connection,
    *,
    kind: str | None = None,
    split: str | None = None,
    language: str | None = None,
    limit: int = 3,
) -> list[Triplet]:
    """Return the first triplets in their fixed order, which mixes sources and files."""
    with conn.cursor(row_factory=class_row(Triplet)) as cursor:
        parameters = {"kind": kind, "split": split, "language": language, "limit": limit}
        return cursor.execute(query("triplet_sample"), parameters).fetchall()


def counts(conn: psycopg.Connection) -> list[Count]:
    """Return the counts by kind, split, language and rule."""
    with conn.cursor(row_factory=class_row(Count)) as cursor:
        return cursor.execute(query("triplet_counts")).fetchall()


def warnings(conn: psycopg.Connection, found: list[Count]) -> list[str]:
    """Return what about these triplets would make training worse than it could be."""
    said = []
    training = [count for count in found if count.split == "train"]
    total = sum(count.triplets for count in training)
    described = sum(count.triplets for count in training if count.kind == "docstring")
    if described < 500:
        said.append(f"Only {described:,} docstring triplets to train on: fine-tuning wants some thousand.")
    sources = conn.execute(query("triplet_sources")).fetchall()
    if len(sources) > 1 and sources[0][1] > 0.8 * total:
        said.append(f"The source {sources[0][0]} gives {sources[0][1] / total:.0%} of the training triplets.")
    languages: dict[str, int] = {}
    for count in training:
        languages[count.language] = languages.get(count.language, 0) + count.triplets
    if len(languages) > 1 and max(languages.values()) > 0.9 * total:
        most = max(languages, key=lambda language: languages[language])
        said.append(f"{most} gives {languages[most] / total:.0%} of the training triplets.")
    return said
