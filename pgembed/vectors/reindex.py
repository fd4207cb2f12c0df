"""Re-embed: every chunk through one encoder into one generation, indexed, calibrated, and attached.

The encoder's weights (the hash of its ONNX graph), and what is done with chunks that are too long for it, decide which
generation a run works on. None yet: a new one is filled. An unfinished one: the run goes on where the last one ended. A
finished one, active or not: only chunks that have no vector yet are embedded, into the generation as it is. Any number
of workers, on any number of hosts, may do the same at the same time: they fill together, and one of them indexes.
Whatever kills a run, the next one goes on, and the result is the same: one row for each live chunk.

Reads `code_chunks`; writes `encoders`, `generations`, `code_embeddings` and its partitions, `rejected_items`.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psycopg
from psycopg.types.json import Jsonb

from pgembed.db.binary_copy import bad_rows
from pgembed.db.connection import connect
from pgembed.db.dsn import resolve
from pgembed.db.migrations import require_current
from pgembed.db.sql import query
from pgembed.encoders.artefact import Manifest
from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.encoders.registry import register_encoder
from pgembed.encoders.windows import LONG, Long
from pgembed.errors import GenerationError
from pgembed.progress import SILENT, Progress
from pgembed.vectors import generations, table
from pgembed.vectors.choosing import find_finished, find_or_create
from pgembed.vectors.filling import BrokenEncoderError, Embedder, Filling
from pgembed.vectors.generations import Generation, change_state, get_generation
from pgembed.vectors.index import (
    CALIBRATION_QUERIES,
    METHODS,
    build_index,
    calibrate_probes,
    rebuild_index,
)
from pgembed.vectors.lock import choosing_lock, encoder_lock, shared_encoder_lock

Connection = psycopg.Connection[Any]

BATCH = 512  # chunks a commit: 5 MB of vectors, and at 50 chunks a second no more than ten seconds of work lost
TARGET_RECALL = 0.95
# An index whose centroids were trained on fewer than half of its rows is built anew; probes are measured again sooner.
_REBUILD_GROWTH, _CALIBRATE_GROWTH = 2.0, 1.1
# New chunks may arrive between the last pass and activation, which asks for all: so many times they are caught up with.
_CATCH_UPS = 3


class Encoder(Embedder, Protocol):
    """An encoder with its manifest."""

    manifest: Manifest


@dataclass(frozen=True)
class ReindexResult:
    """What a run did and what there is now."""

    generation_id: int
    encoder: str
    state: str
    kind: str
    """'new', 'resumed', 'incremental', or 'index' where only that was made anew."""
    rows: int
    embedded: int
    """Vectors that this run wrote."""
    rejected: int
    """Chunks of the generation that the encoder gives no usable vector for."""
    long: Long
    """What was done with chunks that are longer than the encoder reads."""
    long_chunks: int
    """Vectors of the generation that were written for such chunks."""
    max_tokens: int
    """Tokens that the encoder reads: the least of its towers' limits."""
    seconds: float
    embedding_seconds: float
    index_seconds: float
    index_method: str
    lists: int | None
    probes: int | None
    index_recall: float | None
    target_recall: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields, and the rate."""
        return {**asdict(self), "chunks_per_second": self.chunks_per_second}

    @property
    def chunks_per_second(self) -> float | None:
        """Chunks embedded and written a second; None where there was nothing to do."""
        return self.embedded / self.embedding_seconds if self.embedded else None


def reindex(
    dsn: str | None,
    artefact: Path,
    *,
    batch: int = BATCH,
    index_method: str | None = None,
    target_recall: float = TARGET_RECALL,
    activate: bool = False,
    fresh: bool = False,
    long: Long | None = None,
    progress: Progress = SILENT,
) -> ReindexResult:
    """Embed every chunk with the encoder in the folder `artefact`, and index and calibrate the result.

    `batch` is the number of chunks embedded and committed at a time. `index_method` (ivfflat, hnsw, binary) is that of
    the generation, ivfflat for a new one. `activate` lets searches use it at the end. `fresh` starts a new generation
    though there is one of this encoder; where an earlier run with `fresh` did not finish, it goes on with that one.
    `long` (truncate, windows) says what becomes of chunks that are longer than the encoder reads; a generation has one
    way for all of its vectors, and by default goes on with it; a new one truncates.

    Raises:
        EncoderError: the artefact is broken.
        GenerationError: there is nothing to embed, the encoder is broken, or the generation has another index method.
    """
    encoder = load_encoder(artefact, progress)
    return reindex_with(
        dsn,
        encoder,
        batch=batch,
        index_method=index_method,
        target_recall=target_recall,
        activate=activate,
        fresh=fresh,
        long=long,
        progress=progress,
    )


def load_encoder(artefact: Path, progress: Progress = SILENT) -> OnnxEncoder:
    """Load an artefact for embedding in bulk, and say so where nobody measured what it finds.

    Raises:
        EncoderError: it is broken.
    """
    encoder = OnnxEncoder.load(artefact, bulk=True)
    if encoder.manifest.is_unjudged:
        progress.say(
            f"{artefact} is a variant in {encoder.manifest.precision} that was exported without the gate: nobody "
            "measured whether it finds what the float32 encoder finds."
        )
    return encoder


def reindex_with(
    dsn: str | None,
    encoder: Encoder,
    *,
    batch: int = BATCH,
    index_method: str | None = None,
    target_recall: float = TARGET_RECALL,
    activate: bool = False,
    fresh: bool = False,
    long: Long | None = None,
    progress: Progress = SILENT,
) -> ReindexResult:
    """Do what `reindex` does, with an encoder that is loaded already."""
    if batch < 1 or not 0 < target_recall <= 1:
        raise GenerationError(f"batch is {batch} and target recall {target_recall}: at least 1, and above 0 up to 1.")
    if index_method is not None and index_method not in METHODS:
        raise GenerationError(f"There is no index method {index_method!r}; there are {', '.join(METHODS)}.")
    if long is not None and long not in LONG:
        raise GenerationError(f"Long chunks cannot be embedded by {long!r}; there are {', '.join(LONG)}.")
    conninfo = resolve(dsn)
    with _sessions(conninfo) as (reader, writer):
        require_current(writer)
        encoder_id = register_encoder(writer, encoder.manifest.spec, encoder.manifest.fingerprint)
        with choosing_lock(writer, encoder_id):
            generation, kind = find_or_create(writer, encoder.manifest, encoder_id, index_method, long, fresh=fresh)
        run = _Run(reader, writer, encoder, generation.id, encoder_id, batch, target_recall, progress)
        with _noting_errors(writer, generation.id):
            return run.to_the_end(kind, activate=activate)


def index_anew(
    dsn: str | None, encoder: Encoder, *, target_recall: float = TARGET_RECALL, progress: Progress = SILENT
) -> ReindexResult:
    """Build the index of this encoder's finished generation anew while searches go on, and calibrate it.

    Raises:
        GenerationError: there is no finished generation of this encoder.
    """
    conninfo = resolve(dsn)
    with _sessions(conninfo) as (reader, writer):
        require_current(writer)
        encoder_id = register_encoder(writer, encoder.manifest.spec, encoder.manifest.fingerprint)
        generation = find_finished(writer, encoder.manifest, encoder_id)
        run = _Run(reader, writer, encoder, generation.id, encoder_id, BATCH, target_recall, progress)
        with _noting_errors(writer, generation.id), encoder_lock(writer, encoder_id, wait_s=None, progress=progress):
            return run.index_anew()


@dataclass
class _Run:
    """One worker's run over one generation: filled together with others, finished by whoever comes first."""

    reader: Connection
    writer: Connection
    encoder: Encoder
    generation_id: int
    encoder_id: int
    batch: int
    target_recall: float
    progress: Progress
    embedded: int = 0
    embedding_seconds: float = 0.0
    index_seconds: float = 0.0

    def to_the_end(self, kind: str, *, activate: bool) -> ReindexResult:
        started = time.perf_counter()
        with shared_encoder_lock(self.writer, self.encoder_id, progress=self.progress):
            self._fill()
        # each worker passes here in its turn; the first finds everything to do, the others nothing
        with encoder_lock(self.writer, self.encoder_id, wait_s=None, progress=self.progress):
            if self._generation().state in ("filling", "indexing"):
                self._fill()  # what a worker left that was killed meanwhile
                self._require_rows()
                if self._generation().state == "filling":
                    change_state(self.writer, self.generation_id, "indexing")
                self._index()
            # A finished generation takes what is new; so does one finished just now, for building took a while.
            self._fill()
            self._keep_index_up()
            if activate:
                self._activate()
            return self._result(kind, time.perf_counter() - started)

    def index_anew(self) -> ReindexResult:
        started = time.perf_counter()
        generation, rows = self._generation(), self._count_rows()
        rebuild_index(self.writer, generation.id, rows=rows, progress=self.progress)
        self._calibrate()
        self.index_seconds = time.perf_counter() - started
        return self._result("index", self.index_seconds)

    def _generation(self) -> Generation:
        return get_generation(self.writer, self.generation_id)

    def _fill(self) -> int:
        """Embed what is missing; return how many vectors this worker wrote."""
        filling = Filling(
            self.reader,
            self.writer,
            self.encoder,
            self.generation_id,
            self.batch,
            self._generation().long,
            self.progress,
        )
        started = time.perf_counter()
        try:
            filling.fill()
        finally:
            self.embedded += filling.embedded
        if filling.total:
            self.embedding_seconds += time.perf_counter() - started
        return filling.embedded

    def _require_rows(self) -> None:
        rows = self._count_rows()
        if rows == 0 and self._generation().rejected:
            raise BrokenEncoderError(
                "The encoder gave no usable vector (NaN, infinite, zero) for any chunk.",
                remedy="It is broken: export it again, or choose another.",
            )
        if rows == 0:
            raise GenerationError("No chunk has a vector: all were deleted meanwhile.")

    def _index(self) -> None:
        """Index, attach and calibrate: each step only if an earlier run has not done it."""
        started = time.perf_counter()
        generation = self._generation()
        self.writer.execute(table.statement("analyze_embeddings_table", generation.id))
        build_index(
            self.writer,
            generation.id,
            method=generation.index_method,
            rows=self._count_rows(),
            progress=self.progress,
        )
        if not table.is_attached(self.writer, generation.id):
            table.attach(self.writer, generation.id)
        self._calibrate()
        change_state(self.writer, generation.id, "ready")
        self.index_seconds += time.perf_counter() - started

    def _keep_index_up(self) -> None:
        """Renew the index, or the probes, of a finished generation when much was added since."""
        generation, rows = self._generation(), self._count_rows()
        indexed = max(int(generation.metrics.get("indexed_rows", rows)), 1)
        started = time.perf_counter()
        if generation.index_method == "ivfflat" and rows >= _REBUILD_GROWTH * indexed:
            rebuild_index(self.writer, generation.id, rows=rows, progress=self.progress)
            self._calibrate()
        elif rows >= _CALIBRATE_GROWTH * int(generation.metrics.get("calibrated_rows", indexed)):
            self._calibrate(rebuilt=False)
        else:
            return
        self.index_seconds += time.perf_counter() - started

    def _calibrate(self, *, rebuilt: bool = True) -> None:
        rows = self._count_rows()
        texts = [row[0] for row in self.writer.execute(query("calibration_texts"), {"count": CALIBRATION_QUERIES})]
        queries = self.encoder.embed_each(texts, role="query").vectors
        calibration = calibrate_probes(
            self.writer,
            self.generation_id,
            np.delete(queries, list(bad_rows(queries)), axis=0),  # what has no vector as a passage may have none here
            target_recall=self.target_recall,
            progress=self.progress,
        )
        noted = {"calibrated_rows": rows, "calibration": asdict(calibration)}
        if rebuilt:
            noted["indexed_rows"] = rows
        self.writer.execute(query("note_generation_metrics"), {"id": self.generation_id, "metrics": Jsonb(noted)})
        if not calibration.reached:
            self.progress.say(
                f"The index reaches recall {calibration.recall:.3f}, short of {calibration.target}; "
                f"the most effort ({calibration.probes}) is kept."
            )

    def _activate(self) -> None:
        for remaining in reversed(range(_CATCH_UPS)):
            try:
                generations.activate(self.writer, self.generation_id)
                return
            except GenerationError:
                # chunks that arrived since: only then is another try of use
                if not remaining or not self._fill():
                    raise
                self._count_rows()

    def _count_rows(self) -> int:
        row = self.writer.execute(
            table.statement("count_generation_rows", self.generation_id), {"id": self.generation_id}
        ).fetchone()
        return 0 if row is None else int(row[0])

    def _result(self, kind: str, seconds: float) -> ReindexResult:
        found = self._generation()
        return ReindexResult(
            generation_id=found.id,
            encoder=found.encoder,
            state=found.state,
            kind=kind,
            rows=found.row_count or 0,
            embedded=self.embedded,
            rejected=len(found.rejected),
            long=found.long,
            long_chunks=found.long_chunks,
            max_tokens=min(tower.max_tokens for tower in self.encoder.manifest.spec.towers),
            seconds=seconds,
            embedding_seconds=self.embedding_seconds,
            index_seconds=self.index_seconds,
            index_method=found.index_method,
            lists=found.lists,
            probes=found.probes,
            index_recall=found.index_recall,
            target_recall=self.target_recall,
        )


@contextlib.contextmanager
def _noting_errors(conn: Connection, generation_id: int) -> Iterator[None]:
    """Keep why a run ended in the generation's row; one that can only fail again is marked as failed."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        # a connection that is gone, or a server that is, can take no note; the error itself goes on
        with contextlib.suppress(psycopg.Error):
            note = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
            unfinished = get_generation(conn, generation_id).state in ("filling", "indexing")
            if isinstance(error, BrokenEncoderError) and unfinished:
                change_state(conn, generation_id, "failed", error=note)
            else:
                conn.execute(query("note_generation_error"), {"id": generation_id, "error": note})
        raise


@contextlib.contextmanager
def _sessions(conninfo: str) -> Iterator[tuple[Connection, Connection]]:
    """Open the connection that reads and the one that writes and holds the locks."""
    with (
        connect(conninfo, vectors=True, access="session") as reader,
        connect(conninfo, vectors=True, access="session") as writer,
    ):
        for conn in (reader, writer):
            conn.execute(query("use_vector_path"), {"local": False})
        yield reader, writer
