"""What about the triplets would make training worse than it could be, each with its remedy. Reads the views."""

from collections import Counter

import psycopg

from pgembed.db.sql import query
from pgembed.mining.triplets import Count, stale_inputs

# Below this, fine-tuning has too little to learn from: it gained with some thousand, and with 200 steps sees 6,400.
_FEW_DOCSTRINGS = 500
_ONE_SOURCE, _ONE_LANGUAGE = 0.8, 0.9  # shares above which what is learnt is that source or language
# A file of a thousand look-alike functions, generated or a table in disguise, crowds out what others could teach.
_ONE_FILE, _FEW_FILES = 0.1, 20
# An anchor that fits several functions tells none of them from the others.
_REPEATED_FUNCTIONS, _REPEATED = 2, 0.1
# Positives that say what the anchor says, with a name changed. Of 20,000 real functions' code triplets: a quarter.
_NEAR_COPY_BELOW, _NEAR_COPIES = 0.1, 0.5
# Negatives that share next to nothing are told apart without learning. 20,000 real functions: 0.25 on average.
_EASY = 0.12
_FEW = 50  # of fewer triplets a share says nothing


def warnings(conn: psycopg.Connection, found: list[Count]) -> list[str]:
    """Return what is skewed about the triplets that are trained on, each with its remedy. `found`: `counts(conn)`."""
    training = [count for count in found if count.split == "train"]
    total = sum(count.triplets for count in training)
    docstring = [count for count in training if count.kind == "docstring"]
    said = [*_out_of_date(conn), *_few_docstrings(docstring)]
    if total < _FEW:
        return said
    return [
        *said,
        *_one_source(conn, total),
        *_one_language(training, total),
        *_one_file(conn, total),
        *_repeated_anchors(conn),
        *_near_copies(conn),
        *_easy_negatives(docstring),
    ]


def _out_of_date(conn: psycopg.Connection) -> list[str]:
    changed = stale_inputs(conn)
    if not changed:
        return []
    remedy = "pgembed pairs" if {"chunks", "places"} & set(changed) else "pgembed triplets --refresh"
    return [f"The triplets are out of date; changed since they were made: {', '.join(changed)}. Run `{remedy}`."]


def _few_docstrings(docstring: list[Count]) -> list[str]:
    described = sum(count.triplets for count in docstring)
    if described >= _FEW_DOCSTRINGS:
        return []
    return [
        f"Only {described:,} docstring triplets to train on: fine-tuning wants some thousand. Ingest more code, or see "
        "why docstrings are left out: the column anchor_refused of pgembed.chunk_eligibility."
    ]


def _one_source(conn: psycopg.Connection, total: int) -> list[str]:
    sources = conn.execute(query("triplet_sources")).fetchall()
    if len(sources) < 2 or sources[0][1] <= _ONE_SOURCE * total:
        return []
    return [
        f"The source {sources[0][0]} gives {sources[0][1] / total:.0%} of the training triplets: the model will know "
        "that one best. Ingest more of the others, or exclude a part of it by path: a row of pgembed.mining_exclusions."
    ]


def _one_language(training: list[Count], total: int) -> list[str]:
    languages: Counter[str] = Counter()
    for count in training:
        languages[count.language] += count.triplets
    [(most, triplets)] = languages.most_common(1)
    if len(languages) < 2 or triplets <= _ONE_LANGUAGE * total:
        return []
    return [
        f"{most} gives {triplets / total:.0%} of the training triplets: the others will gain little. Ingest more of "
        f"them, or train on one language: pgembed train --language {most}."
    ]


def _one_file(conn: psycopg.Connection, total: int) -> list[str]:
    row = conn.execute(query("triplet_files")).fetchone()
    if row is None or row[2] < _FEW_FILES or row[1] <= _ONE_FILE * total:
        return []
    return [
        f"One file of {row[2]:,}, {row[0]}, gives {row[1] / total:.0%} of the training triplets. If it is generated or "
        "says the same over and over, exclude its path: a row of pgembed.mining_exclusions."
    ]


def _repeated_anchors(conn: psycopg.Connection) -> list[str]:
    row = conn.execute(query("triplet_anchors"), {"functions": _REPEATED_FUNCTIONS}).fetchone()
    if row is None or row[1] < _FEW or row[0] <= _REPEATED * row[1]:
        return []
    return [
        f"{row[0] / row[1]:.0%} of the docstring triplets have an anchor that more than {_REPEATED_FUNCTIONS} "
        f"functions carry word for word, most often {_short(row[2])!r}: it tells none of them from the others. Exclude "
        "such texts: a row of pgembed.mining_exclusions with the field docstring."
    ]


def _near_copies(conn: psycopg.Connection) -> list[str]:
    row = conn.execute(query("triplet_copies"), {"below": _NEAR_COPY_BELOW}).fetchone()
    if row is None or row[0] < _FEW or row[1] <= _NEAR_COPIES * row[0]:
        return []
    return [
        f"{row[1] / row[0]:.0%} of the code triplets have a positive that is nearly a copy (Jaccard from "
        f"{row[2] - _NEAR_COPY_BELOW:g} to near_duplicate, {row[2]:g}): they teach little. Lower the setting "
        "near_duplicate in pgembed.mining_settings, or train on docstrings alone: pgembed train --kind docstring."
    ]


def _easy_negatives(docstring: list[Count]) -> list[str]:
    described = sum(count.triplets for count in docstring)
    if described < _FEW:
        return []
    mean = sum(count.negative_jaccard * count.triplets for count in docstring) / described
    if mean >= _EASY:
        return []
    return [
        f"The negatives of docstrings look easy: they share {mean:.2f} of their tokens with the positive on average. "
        "Find more look-alikes (pgembed pairs --min-jaccard 0.3), try more (the settings same_file_candidates and "
        "like_length_candidates), or let an active generation choose: pgembed triplets --refresh --by-vectors."
    ]


def _short(text: str, most: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
