"""Triplets as a stream from the view, in its fixed order, from any point on. Reads the view that the options name."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import psycopg
from psycopg import sql

from pgembed.db.sql import query
from pgembed.errors import TrainingError
from pgembed.training.options import TrainingOptions

_FETCH = 500


@dataclass(frozen=True, slots=True)
class Example:
    """One triplet."""

    ordinal: int
    anchor: str
    positive: str
    negative: str


def data_fingerprint(conn: psycopg.Connection, options: TrainingOptions) -> tuple[str, int]:
    """Return a hash over every text in order, and how many triplets there are. Ids do not count.

    Raises:
        TrainingError: there is no such view, or it gives no triplet.
    """
    try:
        row = conn.execute(_statement("training_fingerprint", options), options.filters()).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise TrainingError(
            f"pgembed.{options.view} is not a view of triplets: {error.diag.message_primary}",
            remedy="See pgembed.triplets for the columns that are read.",
        ) from error
    if row is None or not row[1]:
        raise TrainingError(
            f"pgembed.{options.view} gives no triplets for {options.filters()}.",
            remedy="Run `pgembed ingest PATH` and `pgembed pairs`, and look with `pgembed triplets`.",
        )
    return str(row[0]), int(row[1])


def batches(
    conn: psycopg.Connection, options: TrainingOptions, available: int, *, first_step: int
) -> Iterator[list[Example]]:
    """Yield the batches of steps `first_step`, … without end: past the last triplet the first follows again.

    The view's order is a hash of the contents: it is a shuffle that every run repeats.
    """
    size = min(options.batch, available)
    skip = (first_step * size) % available
    stream = _endless(conn, options, skip)
    while batch := list(islice(stream, size)):
        yield batch


def _endless(conn: psycopg.Connection, options: TrainingOptions, skip: int) -> Iterator[Example]:
    while True:
        # a server-side cursor: 100,000s of triplets never stand in this process's memory
        with conn.transaction(), conn.cursor(name="pgembed_triplets") as cursor:
            cursor.itersize = _FETCH
            cursor.execute(_statement("training_triplets", options), {**options.filters(), "skip": skip})
            for row in cursor:
                yield Example(*row)
        skip = 0


def _statement(name: str, options: TrainingOptions) -> sql.Composed:
    return sql.SQL(query(name)).format(view=sql.Identifier("pgembed", options.view))
