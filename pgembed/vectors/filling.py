"""Chunks without a vector, embedded and written: read by key, a batch at a time, each batch committed on its own.

While one batch is embedded, the next is read and the last is written: each on a thread and a connection of its own,
one batch deep, so memory holds three batches whatever the table holds. What is committed is never done again: a page
holds only chunks that have no vector yet.

Reads `code_chunks`; writes the generation's table, `rejected_items`, `generations.metrics`.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import psycopg

from pgembed.db.binary_copy import bad_rows, copy_rows, generation_keys
from pgembed.db.sql import query
from pgembed.encoders.batching import Embedded
from pgembed.encoders.spec import Role
from pgembed.encoders.windows import Long
from pgembed.errors import GenerationError
from pgembed.progress import Task
from pgembed.vectors import table

Connection = psycopg.Connection[Any]

# New chunks may arrive as fast as they are embedded; what is left after so many passes is for the next run.
MAXIMUM_PASSES = 5
# An encoder that fails so often is broken, and so is the generation: at least this many chunks, and this share of all.
_MAXIMUM_REJECTED, _MAXIMUM_REJECTED_SHARE = 100, 0.01
_LONGEST_MESSAGE = 500  # characters of what an engine says


class BrokenEncoderError(GenerationError):
    """An encoder that cannot fill a generation, now or later."""


class Embedder(Protocol):
    """What filling needs of an encoder."""

    def embed_each(self, texts: Sequence[str], *, role: Role, long: Long = "truncate") -> Embedded:
        """Embed each text for itself: what fails on one costs no other its vector."""


@dataclass(frozen=True)
class Page:
    """Chunks to embed."""

    ids: list[int]
    contents: list[str]


@dataclass
class Filled:
    """What a filling did."""

    embedded: int = 0
    rejected: list[int] = field(default_factory=list)
    """Chunks that the encoder gave no usable vector for, these and those of earlier runs."""


def fill(
    reader: Connection,
    writer: Connection,
    encoder: Embedder,
    generation_id: int,
    *,
    batch: int,
    long: Long,
    rejected: list[int],
    total: int,
    task: Task,
) -> Filled:
    """Embed every chunk that has no vector in the generation, and those that arrive meanwhile.

    `long` says what becomes of a chunk that is longer than the encoder reads. `total` is what there was to do at the
    start. Both connections are autocommitting.

    Raises:
        BrokenEncoderError: the encoder gives unusable vectors for too many chunks.
    """
    filled = Filled(rejected=list(rejected))
    reader.execute(query("read_by_key"))
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="reindex") as threads:
        for _ in range(MAXIMUM_PASSES):
            before = filled.embedded, len(filled.rejected)
            _one_pass(threads, reader, writer, encoder, generation_id, batch, long, filled, total, task)
            if before == (filled.embedded, len(filled.rejected)):
                break
    return filled


def _one_pass(
    threads: ThreadPoolExecutor,
    reader: Connection,
    writer: Connection,
    encoder: Embedder,
    generation_id: int,
    batch: int,
    long: Long,
    filled: Filled,
    total: int,
    task: Task,
) -> None:
    known_bad = list(filled.rejected)
    following: Future[Page] = threads.submit(_read, reader, generation_id, 0, batch, known_bad)
    writing: Future[int] | None = None
    while (page := following.result()).ids:
        following = threads.submit(_read, reader, generation_id, page.ids[-1], batch, known_bad)
        found = encoder.embed_each(page.contents, role="passage", long=long)
        if writing is not None:
            filled.embedded += writing.result()
        bad = {page.ids[row]: (reason, "") for row, reason in bad_rows(found.vectors).items()}
        bad |= {page.ids[row]: ("encoder_error", said) for row, said in found.errors.items()}
        filled.rejected += bad
        writing = threads.submit(_write, writer, generation_id, page.ids, found, bad)
        task.advance(len(page.ids))
        bad_count = len(filled.rejected)
        if bad_count > max(_MAXIMUM_REJECTED, _MAXIMUM_REJECTED_SHARE * total):
            raise BrokenEncoderError(
                f"The encoder failed or gave unusable vectors (NaN, infinite, zero) for {bad_count:,} chunks.",
                remedy="It is broken: export it again, or choose another. "
                "The chunks are in pgembed.rejected_items (stage 'reindex').",
            )
    if writing is not None:
        filled.embedded += writing.result()


def _read(conn: Connection, generation_id: int, after: int, batch: int, rejected: list[int]) -> Page:
    rows = conn.execute(
        table.statement("missing_chunks", generation_id),
        {"generation_id": generation_id, "after": after, "batch": batch, "rejected": rejected},
    ).fetchall()
    return Page([row[0] for row in rows], [row[1] for row in rows])


def _write(
    conn: Connection, generation_id: int, ids: list[int], found: Embedded, bad: dict[int, tuple[str, str]]
) -> int:
    """Commit a batch, without the chunks that are gone or bad; return the rows written."""
    with conn.transaction():
        alive = {row[0] for row in conn.execute(query("hold_chunks"), {"ids": ids})}
        keep = np.array(
            [n for n, chunk_id in enumerate(ids) if chunk_id in alive and chunk_id not in bad], dtype=np.intp
        )
        if bad := {chunk_id: why for chunk_id, why in bad.items() if chunk_id in alive}:
            _reject(conn, generation_id, bad)
        if count := len(set(found.long) & set(keep.tolist())):
            # with the vectors or not at all: however often runs are killed, none is counted twice
            conn.execute(query("count_long_chunks"), {"id": generation_id, "count": count})
        chunk_ids = np.array(ids, dtype=np.int64)[keep]
        vectors = found.vectors if len(keep) == len(ids) else found.vectors[keep]
        return copy_rows(
            conn, table.identifier(generation_id), table.COLUMNS, generation_keys(generation_id, chunk_ids), vectors
        )


def _reject(conn: Connection, generation_id: int, bad: dict[int, tuple[str, str]]) -> None:
    for chunk_id, (reason, said) in bad.items():
        detail = f"generation {generation_id}" + (f": {_storable(said)}" if said else "")
        conn.execute(query("reject_chunk"), {"chunk_id": chunk_id, "reason": reason, "detail": detail})
    conn.execute(query("note_rejected_chunks"), {"id": generation_id, "chunk_ids": list(bad)})


def _storable(said: str) -> str:
    """Return what a text column takes of an engine's message: it may quote the text that it failed on."""
    return said.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()[:_LONGEST_MESSAGE]
