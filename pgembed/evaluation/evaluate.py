"""One data set by vectors, by words or by both: embed, COPY, rank exactly in the database, score, store.

Reads and writes `evaluations`, reads `search_settings`, writes `encoders`; the vectors live in temporary tables.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import psycopg

from pgembed.encoders.artefact import Manifest
from pgembed.encoders.registry import register_encoder
from pgembed.encoders.spec import Role
from pgembed.errors import EvaluationError
from pgembed.evaluation import store
from pgembed.evaluation.dataset import Dataset
from pgembed.evaluation.fusion import Fusion, TunedFusion, fuse, read_fusion, tune_fusion
from pgembed.evaluation.lexical import rank_by_words
from pgembed.evaluation.metrics import score_rankings
from pgembed.evaluation.ranking import add_documents, rank_documents, temporary_documents
from pgembed.evaluation.store import Evaluation
from pgembed.progress import SILENT, Progress, Task

Connection = psycopg.Connection[Any]
Mode = Literal["vector", "lexical", "hybrid"]

# To be raised when a definition changes, so that older rows are not taken for what would be measured now.
MEASUREMENT = 1

_BATCH = 512  # documents embedded and written at a time: 5 MB of vectors


class Encoder(Protocol):
    """What an evaluation needs of an encoder."""

    manifest: Manifest

    def embed(
        self, texts: Sequence[str], *, role: Role, max_tokens: int | None = None, task: Task | None = None
    ) -> npt.NDArray[np.float32]:
        """Return (N, 2560) float32, L2-normalised, in the order given."""


def evaluate_dataset(
    conn: Connection,
    encoder: Encoder | None,
    dataset: Dataset,
    *,
    mode: Mode = "vector",
    again: bool = False,
    progress: Progress = SILENT,
) -> Evaluation:
    """Measure how well the documents of `dataset` are found by `mode`, and store that.

    By "vector" that is how well `encoder` finds them; by "lexical" it is BM25 and needs none; "hybrid" fuses both, as
    `search_settings` says. Names count for nothing here: a data set has none.
    What was measured before (the same encoder, data and settings) is looked up, unless `again` is set.

    Raises:
        EncoderError: the encoder gives no usable vector for a text.
        EvaluationError: the mode needs an encoder, and there is none.
    """
    settings: dict[str, Any] = {"measurement": MEASUREMENT, "search": "exact" if mode == "vector" else mode}
    encoder_id = None
    if mode != "lexical":
        manifest = _required(encoder).manifest
        encoder_id = register_encoder(conn, manifest.spec, manifest.fingerprint)
        # the fingerprint is of spec and weights; the graph may still be another, of lower precision for one
        settings["onnx_sha256"] = manifest.onnx_sha256
    if mode != "vector":
        fusion = asdict(read_fusion(conn))
        settings |= fusion if mode == "hybrid" else {name: fusion[name] for name in ("bm25_k1", "bm25_b")}
    if not again and (found := store.find(conn, encoder_id, dataset.fingerprint, settings)):
        return store.note_languages(conn, found, dataset)
    numbers = _rank(conn, encoder, dataset, mode, progress)
    names = dataset.document_order
    rankings = {q: [names[number] for number in found] for q, found in zip(dataset.queries, numbers, strict=True)}
    saved = store.save(conn, encoder_id, dataset, score_rankings(rankings, dataset.judgements), settings)
    return store.note_languages(conn, saved, dataset)


def tune(conn: Connection, encoder: Encoder, dataset: Dataset, *, progress: Progress = SILENT) -> TunedFusion:
    """Return how both rankings of `dataset` are best fused; see `tune_fusion`. Stores nothing."""
    by_vector = rank_by_vectors(conn, encoder, dataset, progress)
    fusion = read_fusion(conn)
    return tune_fusion(dataset, by_vector, _rank_by_words(dataset, fusion), fusion)


def rank_by_vectors(conn: Connection, encoder: Encoder, dataset: Dataset, progress: Progress) -> list[list[int]]:
    """Return for each query the numbers of the nearest documents in `document_order`, best first, by exact search."""
    names = dataset.document_order
    total = len(names) + len(dataset.queries)
    with temporary_documents(conn):
        with progress.task(f"embedding {dataset.name}", total, "texts") as task:
            for start in range(0, len(names), _BATCH):
                texts = [dataset.documents[name] for name in names[start : start + _BATCH]]
                add_documents(conn, start, encoder.embed(texts, role="passage", task=task))
            queries = encoder.embed(list(dataset.queries.values()), role="query", task=task)
        return rank_documents(conn, queries)


def _rank(
    conn: Connection, encoder: Encoder | None, dataset: Dataset, mode: Mode, progress: Progress
) -> list[list[int]]:
    fusion = read_fusion(conn)
    if mode == "lexical":
        return _rank_by_words(dataset, fusion)
    by_vector = rank_by_vectors(conn, _required(encoder), dataset, progress)
    if mode == "vector":
        return by_vector
    return [fuse(v, w, fusion) for v, w in zip(by_vector, _rank_by_words(dataset, fusion), strict=True)]


def _rank_by_words(dataset: Dataset, fusion: Fusion) -> list[list[int]]:
    documents = [dataset.documents[name] for name in dataset.document_order]
    return rank_by_words(documents, list(dataset.queries.values()), k1=fusion.bm25_k1, b=fusion.bm25_b)


def _required(encoder: Encoder | None) -> Encoder:
    if encoder is None:
        raise EvaluationError("Only --mode lexical is evaluated without an encoder.")
    return encoder
