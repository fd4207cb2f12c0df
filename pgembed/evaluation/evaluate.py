"""One encoder on one data set, through the database: embed, COPY, rank exactly, score, store.

Reads and writes `evaluations`, writes `encoders`; the vectors live in temporary tables.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import psycopg

from pgembed.encoders.artefact import Manifest
from pgembed.encoders.registry import register_encoder
from pgembed.encoders.spec import Role
from pgembed.evaluation import store
from pgembed.evaluation.dataset import Dataset
from pgembed.evaluation.metrics import score_rankings
from pgembed.evaluation.ranking import add_documents, rank_documents, temporary_documents
from pgembed.evaluation.store import Evaluation
from pgembed.progress import SILENT, Progress, Task

Connection = psycopg.Connection[Any]

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
    conn: Connection, encoder: Encoder, dataset: Dataset, *, again: bool = False, progress: Progress = SILENT
) -> Evaluation:
    """Measure how well `encoder` finds the documents of `dataset`, and store that.

    What was measured before (the same encoder, data and settings) is looked up, unless `again` is set.

    Raises:
        EncoderError: the encoder gives no usable vector for a text.
    """
    manifest = encoder.manifest
    encoder_id = register_encoder(conn, manifest.spec, manifest.fingerprint)
    # the fingerprint is of spec and weights; the graph may still be another, of lower precision for one
    settings = {"measurement": MEASUREMENT, "search": "exact", "onnx_sha256": manifest.onnx_sha256}
    if not again and (found := store.find(conn, encoder_id, dataset.fingerprint, settings)):
        return found
    rankings = _rankings(conn, encoder, dataset, progress)
    return store.save(conn, encoder_id, dataset, score_rankings(rankings, dataset.judgements), settings)


def _rankings(conn: Connection, encoder: Encoder, dataset: Dataset, progress: Progress) -> dict[str, list[str]]:
    """Return for each query the ids of the nearest documents, best first."""
    names = dataset.document_order
    total = len(names) + len(dataset.queries)
    with temporary_documents(conn):
        with progress.task(f"embedding {dataset.name}", total, "texts") as task:
            for start in range(0, len(names), _BATCH):
                texts = [dataset.documents[name] for name in names[start : start + _BATCH]]
                add_documents(conn, start, encoder.embed(texts, role="passage", task=task))
            queries = encoder.embed(list(dataset.queries.values()), role="query", task=task)
        ranked = rank_documents(conn, queries)
    return {
        identifier: [names[number] for number in numbers]
        for identifier, numbers in zip(dataset.queries, ranked, strict=True)
    }
