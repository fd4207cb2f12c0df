"""Triplets: anchor, positive, negative, each with the reason why it is there. Thin calls of the SQL.

Writes `chunk_splits`, `triplet_candidates` and `triplet_state`; people read the views `triplets`, `triplets_code` and
`triplets_docstring`, and ask `explain_triplet(ordinal)` and `why_no_triplets(chunk_id)`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from pgembed.db.sql import query
from pgembed.errors import MiningError
from pgembed.progress import SILENT, Progress


@dataclass(frozen=True)
class Triplet:
    """A row of the view."""

    ordinal: int
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
    generation_id: int | None = None
    positive_score: float | None = None
    """Cosine of the anchor's chunk and the positive in that generation; None where no vector was asked."""
    negative_score: float | None = None


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


def refresh_triplets(conn: psycopg.Connection, progress: Progress = SILENT, *, by_vectors: bool | None = None) -> int:
    """Rebuild splits and triplets from pairs and settings, in one transaction; return how many triplets there are.

    `by_vectors` says whether the active generation's vectors are asked, now and in later refreshes (it is the setting
    `use_vectors`); None leaves that as it is. Where they are, what it cost is told.

    Raises:
        MiningError: settings contradict each other, pairs do not reach as far as they, or no generation is active.
    """
    progress.say("choosing splits and triplets")
    try:
        with conn.transaction():
            if by_vectors is not None:
                conn.execute(query("use_vectors"), {"value": float(by_vectors)})
            row = conn.execute(query("refresh_triplets")).fetchone()
            told = conn.execute(query("refresh_report")).fetchone()
    except (psycopg.errors.InvalidParameterValue, psycopg.errors.ObjectNotInPrerequisiteState) as error:
        raise MiningError(
            f"Triplets cannot be made: {error.diag.message_primary}.", remedy=error.diag.message_hint
        ) from error
    assert row is not None  # noqa: S101 - a function's result is a row
    assert told is not None  # noqa: S101 - it has just been written
    report = told[0]
    if "vectors" in report:
        progress.say(
            f"generation {report['generation']}: {report['vectors']:,} vectors of {report['chunks']:,} chunks read, "
            f"{report['scored']:,} pairs scored, {report['dropped']:,} false negatives dropped; "
            f"{report['seconds']:.1f} s in all"
        )
    return int(row[0])


def held_out_paths(conn: psycopg.Connection, source: str, paths: Iterable[str]) -> set[str]:
    """Return those of the `paths` of a source whose code is in the test split, whether they were ingested or not."""
    return {row[0] for row in conn.execute(query("held_out_paths"), {"source": source, "paths": list(paths)})}


def held_out_anchors(conn: psycopg.Connection, source: str, *, limit: int) -> list[str]:
    """Return descriptions of held-out functions of a source, in the triplets' fixed order."""
    return [row[0] for row in conn.execute(query("held_out_anchors"), {"source": source, "limit": limit})]


def are_stale(conn: psycopg.Connection) -> bool:
    """Whether anything that the triplets follow from has changed since they were made."""
    return bool(stale_inputs(conn))


def stale_inputs(conn: psycopg.Connection) -> list[str]:
    """Return what has changed: settings, exclusions, blocks, pairs, sources, chunks, places, generation."""
    return [str(row[0]) for row in conn.execute(query("stale_inputs"))]


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
