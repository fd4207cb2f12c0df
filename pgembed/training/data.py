"""Triplets as a stream from the view, in its fixed order, from any point on. Reads the view that the options name."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from random import Random
from typing import Any

import psycopg
from psycopg import sql

from pgembed.db.sql import query
from pgembed.errors import TrainingError
from pgembed.training.options import TrainingOptions

CODE_SHARE = 0.25
"""Of a batch, where nobody said how much."""
_FETCH = 500


@dataclass(frozen=True, slots=True)
class Triplet:
    """One row of the view."""

    ordinal: int
    kind: str
    anchor: str
    positive: str
    negative: str


@dataclass(frozen=True)
class DataSummary:
    """What the view gives for some filters."""

    fingerprint: str
    """sha256 over kind and texts of every triplet in order. Ids do not count."""
    triplets: int
    """Of the kind that is trained on; code triplets that are mixed in are counted by themselves."""
    code: int = 0


@contextmanager
def snapshot(conn: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """Give a second connection that sees one state of the database for as long as it lives.

    So what is trained on is what was fingerprinted, whatever is ingested meanwhile.
    """
    with psycopg.connect(conn.info.dsn, password=conn.info.password or None) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.read_only = True
        # between two fetches stand many training steps
        reader.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        yield reader


def summarise(reader: psycopg.Connection, options: TrainingOptions) -> DataSummary:
    """Fingerprint and count the triplets that the options select.

    Raises:
        TrainingError: there is no such view, it gives no triplet, or one without a text.
    """
    found = _summarise(reader, options)
    if not options.code_share:
        return found
    code = _summarise(reader, replace(options, kind="code", code_share=0.0))
    both = hashlib.sha256(f"{found.fingerprint} {code.fingerprint}".encode()).hexdigest()
    return DataSummary(both, found.triplets, code.triplets)


def settled(reader: psycopg.Connection, options: TrainingOptions) -> TrainingOptions:
    """Return the options with the share of code triplets decided: a quarter where nobody said how much, if there are
    any, and if that is a whole triplet of a batch of docstrings."""
    if options.code_share is not None:
        return options
    can_mix = options.kind == "docstring" and round(options.batch * CODE_SHARE) > 0
    has_code = can_mix and count_of(reader, options.of_kind("code")) > 0
    return replace(options, code_share=CODE_SHARE if has_code else 0.0)


def count_of(reader: psycopg.Connection, options: TrainingOptions) -> int:
    """Return how many triplets the options' kind alone has; it may be none."""
    with _needing_triplets(options):
        row = reader.execute(_statement("training_count", options), options.filters()).fetchone()
    return 0 if row is None else int(row[0])


@contextmanager
def _needing_triplets(options: TrainingOptions) -> Iterator[None]:
    try:
        yield
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise TrainingError(
            f"pgembed.{options.view} is not a view of triplets: {error.diag.message_primary}",
            remedy="A view needs the columns of pgembed.triplets: ordinal, kind, split, language, anchor, "
            "positive, negative.",
        ) from error


def _summarise(reader: psycopg.Connection, options: TrainingOptions) -> DataSummary:
    with _needing_triplets(options):
        row = reader.execute(_statement("training_fingerprint", options), options.filters()).fetchone()
    if row is None or not row[1]:
        raise TrainingError(
            f"pgembed.{options.view} gives no triplets of "
            + ", ".join(f"{name} {value}" for name, value in options.filters().items() if value is not None)
            + ".",
            remedy="`pgembed triplets` counts what there is; `pgembed ingest PATH` and then `pgembed pairs` make more.",
        )
    if row[2]:
        raise TrainingError(
            f"pgembed.{options.view} gives {row[2]:,} triplets that lack a text.",
            remedy="anchor, positive and negative must not be null: leave such rows out of the view.",
        )
    return DataSummary(str(row[0]), int(row[1]))


def batches(
    reader: psycopg.Connection, options: TrainingOptions, data: DataSummary, *, first_step: int
) -> Iterator[list[Triplet]]:
    """Yield the batches of steps `first_step`, … without end: past the last triplet the first follows again.

    The view's order is by a hash: a shuffle that every run repeats. The seed says where in it a run begins. Code
    triplets that are mixed in have an order of their own, and stand behind the others of a batch.
    """
    streams = [
        (_endless(reader, options.of_kind(kind), place["next"]), place["batch"])
        for kind, place in _places(options, data, first_step).items()
    ]
    while batch := [row for stream, size in streams for row in islice(stream, size)]:
        yield batch


def sampler_state(options: TrainingOptions, data: DataSummary, step: int) -> dict[str, Any]:
    """Return where in the view's order the batch of `step` (from 0) begins, and how long a batch is.

    What is mixed in has its own place, under its kind.
    """
    places = _places(options, data, step)
    code = {"code": places["code"]} if options.code_share else {}
    return {**places[options.kind], **code}


def batch_size(options: TrainingOptions, data: DataSummary) -> int:
    """Return how many triplets a step takes: as asked for, or as many as there are."""
    return sum(place["batch"] for place in _places(options, data, 0).values())


def _places(options: TrainingOptions, data: DataSummary, step: int) -> dict[str | None, dict[str, int]]:
    mixed_in = round(options.batch * (options.code_share or 0))
    return {
        kind: _place(options.seed, size, available, step)
        for kind, size, available in (
            (options.kind, options.batch - mixed_in, data.triplets),
            *([("code", mixed_in, data.code)] if mixed_in else []),
        )
    }


def _place(seed: int, wanted: int, available: int, step: int) -> dict[str, int]:
    size = min(wanted, available)
    begin = Random(seed).randrange(available)  # noqa: S311 - a place to begin is no secret
    return {"next": (begin + step * size) % available, "batch": size, "of": available}


def read_rows(reader: psycopg.Connection, options: TrainingOptions, split: str, limit: int) -> list[Triplet]:
    """Return the first rows of a split in the view's order, without those that lack a text."""
    rows = reader.execute(_statement("split_triplets", options), {**options.filters(split), "limit": limit})
    return [Triplet(*row) for row in rows]


def _endless(reader: psycopg.Connection, options: TrainingOptions, skip: int) -> Iterator[Triplet]:
    while True:
        # a server-side cursor: 100,000s of triplets never stand in this process's memory
        with reader.cursor(name=f"pgembed_triplets_{options.kind}") as cursor:
            cursor.itersize = _FETCH
            cursor.execute(_statement("training_triplets", options), {**options.filters(), "skip": skip})
            for row in cursor:
                yield Triplet(*row)
        skip = 0


def _statement(name: str, options: TrainingOptions) -> sql.Composed:
    return sql.SQL(query(name)).format(view=sql.Identifier("pgembed", options.view))
