"""Chunks without a vector, embedded and written, by any number of workers side by side.

The ids of chunks are cut into ranges; a worker takes one that nobody holds, and in it what has no vector yet, a batch
at a time, each batch committed on its own. While one batch is embedded, the next is read and the last is written: each
on a thread and a connection of its own, one batch deep, so memory holds three batches whatever the table holds. What is
committed is never done again, and the generation's key makes a second vector for a chunk impossible.

Reads `code_chunks`; writes the generation's table, `rejected_items`, `generations.metrics`.
"""

import time
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
from pgembed.progress import Progress, Task
from pgembed.vectors import table
from pgembed.vectors.generations import get_generation
from pgembed.vectors.lock import RANGE, range_lock

Connection = psycopg.Connection[Any]

# New chunks may arrive as fast as they are embedded; what is left after so many passes is for the next run.
MAXIMUM_PASSES = 5
_MAXIMUM_SHARED_PASSES = 50  # the same where others hold some of the ranges
# An encoder that fails so often is broken, and so is the generation: at least this many chunks, and this share of all.
_MAXIMUM_REJECTED, _MAXIMUM_REJECTED_SHARE = 100, 0.01
_LONGEST_MESSAGE = 500  # characters of what an engine says
_POLL_S = 0.5  # how soon a worker sees that another one's range is free


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
class Filling:
    """One worker's part in filling a generation. Both connections are autocommitting."""

    reader: Connection
    writer: Connection
    encoder: Embedder
    generation_id: int
    batch: int
    long: Long
    """What becomes of a chunk that is longer than the encoder reads."""
    progress: Progress
    embedded: int = 0
    """Vectors that this worker wrote."""
    rejected: list[int] = field(default_factory=list)
    """Chunks that the encoder gave no usable vector for, whichever worker tried."""
    total: int = 0
    """Chunks of the generation, with a vector or without, when this began."""

    def fill(self) -> None:
        """Embed every chunk that has no vector, and those that arrive meanwhile; return when nobody has work left.

        Raises:
            BrokenEncoderError: the encoder gives unusable vectors for too many chunks, here or for another worker.
        """
        generation = get_generation(self.writer, self.generation_id)
        self.rejected = list(generation.rejected)
        missing = table.count_missing(self.writer, self.generation_id, self.rejected)
        if not missing:
            return
        self.total = (generation.row_count or 0) + missing
        self.reader.execute(query("read_by_key"))
        with (
            self.progress.task("Embedding", missing, "chunks") as task,
            ThreadPoolExecutor(max_workers=2, thread_name_prefix="reindex") as threads,
        ):
            self._until_nothing_is_left(threads, task, missing)

    def _until_nothing_is_left(self, threads: ThreadPoolExecutor, task: Task, missing: int) -> None:
        passes, shared, waiting, counted = 0, 0, False, 0
        while passes < MAXIMUM_PASSES and shared < _MAXIMUM_SHARED_PASSES and (ranges := self._open_ranges()):
            before, taken = (self.embedded, len(self.rejected)), 0
            for number in ranges:
                with range_lock(self.writer, self.generation_id, number) as ours:
                    if ours:
                        taken += 1
                        counted += self._fill_range(threads, number, task)
            if taken == len(ranges):
                passes += 1
                if before == (self.embedded, len(self.rejected)):
                    return  # what is left is being deleted by others
            elif taken:
                shared += 1
            else:
                if not waiting:
                    self.progress.say("All that is left is in the hands of other workers; waiting for them …")
                    waiting = True
                left = table.count_missing(self.writer, self.generation_id, self.rejected)
                if (others := missing - left - counted) > 0:
                    task.advance(others)
                    counted += others
                time.sleep(_POLL_S)
            self._learn_from_others()

    def _open_ranges(self) -> list[int]:
        rows = self.writer.execute(
            table.statement("missing_ranges", self.generation_id),
            {"generation_id": self.generation_id, "rejected": self.rejected, "size": RANGE},
        )
        return [row[0] for row in rows]

    def _learn_from_others(self) -> None:
        """Take over what other workers could not embed, and stop where one has found the encoder to be broken."""
        generation = get_generation(self.writer, self.generation_id)
        if generation.state == "failed":
            raise BrokenEncoderError(
                f"Another worker has found the encoder to be broken: {generation.error}",
                remedy="Export it again, or choose another.",
            )
        self.rejected = sorted({*self.rejected, *generation.rejected})

    def _fill_range(self, threads: ThreadPoolExecutor, number: int, task: Task) -> int:
        """Embed what is missing in a range that is ours; return how many chunks that were."""
        known_bad = list(self.rejected)
        last, done = (number + 1) * RANGE, 0
        following: Future[Page] = threads.submit(self._read, number * RANGE, last, known_bad)
        writing: Future[int] | None = None
        try:
            while (page := following.result()).ids:
                following = threads.submit(self._read, page.ids[-1], last, known_bad)
                found = self.encoder.embed_each(page.contents, role="passage", long=self.long)
                if writing is not None:
                    self.embedded += writing.result()
                    writing = None
                bad = {page.ids[row]: (reason, "") for row, reason in bad_rows(found.vectors).items()}
                bad |= {page.ids[row]: ("encoder_error", said) for row, said in found.errors.items()}
                self.rejected += bad
                writing = threads.submit(self._write, page.ids, found, bad)
                done += len(page.ids)
                task.advance(len(page.ids))
                self._require_sound_encoder()
        finally:
            # the range is let go only when nothing of ours is in flight in it
            following.exception()
            if writing is not None and writing.exception() is None:
                self.embedded += writing.result()
        if writing is not None:
            writing.result()
        return done

    def _require_sound_encoder(self) -> None:
        bad = len(self.rejected)
        if bad > max(_MAXIMUM_REJECTED, _MAXIMUM_REJECTED_SHARE * self.total):
            raise BrokenEncoderError(
                f"The encoder failed or gave unusable vectors (NaN, infinite, zero) for {bad:,} chunks.",
                remedy="It is broken: export it again, or choose another. "
                "The chunks are in pgembed.rejected_items (stage 'reindex').",
            )

    def _read(self, after: int, last: int, rejected: list[int]) -> Page:
        rows = self.reader.execute(
            table.statement("missing_chunks", self.generation_id),
            {
                "generation_id": self.generation_id,
                "after": after,
                "last": last,
                "batch": self.batch,
                "rejected": rejected,
            },
        ).fetchall()
        return Page([row[0] for row in rows], [row[1] for row in rows])

    def _write(self, ids: list[int], found: Embedded, bad: dict[int, tuple[str, str]]) -> int:
        """Commit a batch, without the chunks that are gone or bad; return the rows written."""
        conn, generation_id = self.writer, self.generation_id
        with conn.transaction():
            alive = {row[0] for row in conn.execute(query("hold_chunks"), {"ids": ids})}
            keep = np.array(
                [n for n, chunk_id in enumerate(ids) if chunk_id in alive and chunk_id not in bad], dtype=np.intp
            )
            chunk_ids = np.array(ids, dtype=np.int64)[keep]
            vectors = found.vectors if len(keep) == len(ids) else found.vectors[keep]
            keys = generation_keys(generation_id, chunk_ids)
            written = copy_rows(conn, table.identifier(generation_id), table.COLUMNS, keys, vectors)
            # last, for these update the generation's row, which other workers' batches wait for
            if bad := {chunk_id: why for chunk_id, why in bad.items() if chunk_id in alive}:
                _reject(conn, generation_id, bad)
            if count := len(set(found.long) & set(keep.tolist())):
                # with the vectors or not at all: however often runs are killed, none is counted twice
                conn.execute(query("count_long_chunks"), {"id": generation_id, "count": count})
        return written


def _reject(conn: Connection, generation_id: int, bad: dict[int, tuple[str, str]]) -> None:
    for chunk_id, (reason, said) in bad.items():
        detail = f"generation {generation_id}" + (f": {_storable(said)}" if said else "")
        conn.execute(query("reject_chunk"), {"chunk_id": chunk_id, "reason": reason, "detail": detail})
    conn.execute(query("note_rejected_chunks"), {"id": generation_id, "chunk_ids": list(bad)})


def _storable(said: str) -> str:
    """Return what a text column takes of an engine's message: it may quote the text that it failed on."""
    return said.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()[:_LONGEST_MESSAGE]
