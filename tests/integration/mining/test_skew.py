"""Warnings about triplets: each says what is wrong and what to do, and none is given where nothing is."""

from collections.abc import Callable
from dataclasses import replace

import psycopg
import pytest
from fixtures_chunks import Chunk, add_chunks
from fixtures_triplets import corpus, mine, rows

from pgembed.mining.skew import warnings
from pgembed.mining.triplets import counts, refresh_triplets


def said_of(conn: psycopg.Connection, chunks: list[Chunk]) -> list[str]:
    add_chunks(conn, chunks)
    conn.execute("UPDATE pgembed.mining_settings SET value = 1 WHERE name = 'train_share'")
    mine(conn)
    return warnings(conn, counts(conn))


def balanced(count: int = 420) -> list[Chunk]:
    """The corpus over two sources and two languages, with enough docstrings; each is said differently."""
    return [
        replace(
            chunk,
            source=("here", "there")[number % 2],
            language=("python", "go")[number % 3 == 0],
            docstring=f"Describe at length what number {number} does here.",
        )
        for number, chunk in enumerate(corpus(count=count))
    ]


def test_nothing_is_said_of_what_is_balanced(conn: psycopg.Connection) -> None:
    assert said_of(conn, balanced()) == []


def _from_one_source(chunks: list[Chunk]) -> list[Chunk]:
    return [replace(chunk, source="here" if n % 12 else "there") for n, chunk in enumerate(chunks)]


def _in_one_language(chunks: list[Chunk]) -> list[Chunk]:
    return [replace(chunk, language="python" if n % 25 else "go") for n, chunk in enumerate(chunks)]


def _from_one_file(chunks: list[Chunk]) -> list[Chunk]:
    return [replace(chunk, path="table.py" if n % 4 else chunk.path) for n, chunk in enumerate(chunks)]


def _with_repeated_anchors(chunks: list[Chunk]) -> list[Chunk]:
    return [
        replace(chunk, docstring=chunk.docstring if n % 4 else f"Return the\n  value of it.\n\nMore {n}.")
        for n, chunk in enumerate(chunks)
    ]


def _with_copies(chunks: list[Chunk]) -> list[Chunk]:
    """For each a second one that shares 17 of 23 tokens: 0.74."""
    return [
        one
        for n, chunk in enumerate(chunks)
        for one in (
            replace(chunk, tokens=frozenset([*sorted(chunk.tokens)[:16], *(f"own{n}_{i}" for i in range(4))])),
            replace(
                chunk,
                tokens=frozenset([*sorted(chunk.tokens)[:16], *(f"own{n}_{i}" for i in (0, 8, 9, 10))]),
                body=f"{chunk.body} + 1",
                docstring=f"{chunk.docstring} Twice.",
            ),
        )
    ]


def _without_look_alikes(chunks: list[Chunk]) -> list[Chunk]:
    return [
        replace(chunk, tokens=frozenset(["def", *(f"own{n}_{i}" for i in range(15))])) for n, chunk in enumerate(chunks)
    ]


def _with_few_docstrings(chunks: list[Chunk]) -> list[Chunk]:
    return [replace(chunk, docstring=None if n % 3 else chunk.docstring) for n, chunk in enumerate(chunks)]


@pytest.mark.parametrize(
    ("skew", "what", "remedy"),
    [
        (_from_one_source, "The source here gives 9", "a row of pgembed.mining_exclusions"),
        (_in_one_language, "python gives 9", "pgembed train --language python"),
        (_from_one_file, "/table.py, gives", "exclude its path"),
        (_with_repeated_anchors, "most often 'Return the value of it.'", "with the field docstring"),
        (_with_copies, "nearly a copy (Jaccard from 0.7 to near_duplicate, 0.8)", "pgembed train --kind docstring"),
        (_without_look_alikes, "look easy: they share 0.0", "pgembed triplets --refresh --by-vectors"),
        (_with_few_docstrings, "docstring triplets to train on", "pgembed.chunk_eligibility"),
    ],
)
def test_skew_is_told_with_its_remedy(
    conn: psycopg.Connection, skew: Callable[[list[Chunk]], list[Chunk]], what: str, remedy: str
) -> None:
    said = said_of(conn, skew(balanced()))
    [one] = [warning for warning in said if what in warning]
    assert remedy in one


def test_only_what_is_trained_on_counts(conn: psycopg.Connection) -> None:
    said_of(conn, _from_one_file(balanced()))
    conn.execute("UPDATE pgembed.mining_settings SET value = 0 WHERE name = 'train_share'")
    refresh_triplets(conn)
    assert rows(conn)
    assert [warning.split(":")[0] for warning in warnings(conn, counts(conn))] == [
        "Only 0 docstring triplets to train on"
    ]


def test_marked_triplets_are_not_counted(conn: psycopg.Connection) -> None:
    before = said_of(conn, _from_one_file(balanced()))
    conn.execute(
        """INSERT INTO pgembed.chunk_blocks (sha256, reason)
           SELECT sha256, 'a table' FROM pgembed.code_chunks c JOIN pgembed.chunk_locations l ON l.chunk_id = c.id
            WHERE l.path = 'table.py' ON CONFLICT DO NOTHING"""
    )
    after = warnings(conn, counts(conn))
    assert any("table.py" in warning for warning in before)
    assert not any("table.py" in warning for warning in after)


@pytest.mark.parametrize(
    ("statement", "changed", "remedy"),
    [
        (
            "UPDATE pgembed.mining_settings SET value = 3 WHERE name = 'length_ratio'",
            "settings",
            "pgembed triplets --refresh",
        ),
        ("DELETE FROM pgembed.code_chunks WHERE id = 1", "chunks, places", "pgembed pairs"),
    ],
)
def test_triplets_that_are_out_of_date_are_told(
    conn: psycopg.Connection, statement: str, changed: str, remedy: str
) -> None:
    said_of(conn, corpus(count=40))
    conn.execute(statement)
    [told] = [warning for warning in warnings(conn, counts(conn)) if "out of date" in warning]
    assert told.endswith(f"changed since they were made: {changed}. Run `{remedy}`.")
