"""What training does for search, while it runs: retrieval among the validation triplets, base against tuned.

Each distinct anchor of the validation rows is a query, all their positives and negatives are the documents, and an
anchor's positives are its right answers. Small and cheap, with hard negatives on purpose: it steers a run and tells
whether it helped; how well a search will do, `pgembed eval` tells.

Reads the triplet view.
"""

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg
import torch

from pgembed.evaluation.bootstrap import paired_bootstrap
from pgembed.evaluation.dataset import text_id
from pgembed.evaluation.metrics import score_ranking
from pgembed.training.data import Triplet, read_rows
from pgembed.training.distributed import ALONE, Processes
from pgembed.training.encode import Text, TextEncoder, anchor_text, distinct_texts, encode_together
from pgembed.training.model import EncoderModel
from pgembed.training.objective import batch_objective
from pgembed.training.options import TrainingOptions
from pgembed.training.runs import ValidationMetrics

# Part of a run's work that validation takes where nobody says how much: a text forward is a third of one in training.
_SHARE = 0.04
_LEAST_ROWS, _MOST_ROWS = 32, 256
_TEXTS_AT_A_TIME = 64
_DEPTH = 10


@dataclass(frozen=True)
class ValidationSet:
    """Validation rows, and what follows from them once and for all."""

    rows: list[Triplet]
    fingerprint: str
    """sha256 over kind and texts of the rows in order."""
    texts: list[Text] = field(init=False)
    queries: list[Text] = field(init=False)
    documents: list[Text] = field(init=False)
    """In the order of their texts' hashes: it breaks ties, and knows nothing of what is right."""
    answers: list[set[str]] = field(init=False)
    """Of each query, the right documents' texts."""

    def __post_init__(self) -> None:
        own = {anchor_text(row): set[str]() for row in self.rows}
        for row in self.rows:
            own[anchor_text(row)].add(row.positive)
        bodies = {text for row in self.rows for text in (row.positive, row.negative)}
        values = {
            "texts": distinct_texts(self.rows),
            "queries": sorted(own),
            "documents": [("passage", text) for text in sorted(bodies, key=lambda text: (text_id(text), text))],
            "answers": [own[query] for query in sorted(own)],
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)


def read_validation(reader: psycopg.Connection, options: TrainingOptions) -> ValidationSet | None:
    """Return the validation rows that the options ask for; None where there are none, or nothing is to be measured."""
    if options.evaluate_every == 0:
        return None
    rows = read_rows(reader, options, "validation", planned_rows(options))
    if not rows:
        return None
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr((row.kind, row.anchor, row.positive, row.negative)).encode("utf-8", "surrogatepass"))
    return ValidationSet(rows, digest.hexdigest())


def is_due(step: int, options: TrainingOptions) -> bool:
    """Tell whether the model is measured after `step` steps: before the first, now and then, and after the last."""
    every = options.evaluate_every
    if every is None:
        every = -(-options.steps // 2)
    return every > 0 and (step % every == 0 or step == options.steps)


def planned_rows(options: TrainingOptions) -> int:
    """Return how many rows are measured: as asked for, or as many as their share of the work allows."""
    if options.evaluation_rows is not None:
        return options.evaluation_rows
    times = sum(is_due(step, options) for step in range(options.steps + 1))
    # a row's texts go forward once; a triplet's in training forward and, at twice the cost, back
    rows = int(_SHARE * 3 * options.steps * options.batch / max(times, 1))
    return max(_LEAST_ROWS, min(_MOST_ROWS, rows))


def validate(
    model: EncoderModel,
    encode: TextEncoder,
    held: ValidationSet,
    options: TrainingOptions,
    *,
    step: int,
    bf16: bool = False,
    among: Processes = ALONE,
) -> ValidationMetrics:
    """Measure the model as it is: the training's loss in batches of the training's size, nDCG@10 and MRR@10."""
    began = time.monotonic()
    with torch.no_grad():
        vector_ND = encode_together(model, encode, held.texts, among, bf16=bf16, at_most=_TEXTS_AT_A_TIME)
        loss = 0.0
        for start in range(0, len(held.rows), options.batch):
            part = held.rows[start : start + options.batch]
            value = batch_objective(vector_ND, held.texts, part, options, model.spec)
            loss += float(value.loss) * len(part) / len(held.rows)
    scores = _retrieve(vector_ND.float().cpu().numpy(), held)
    ndcg, mrr = ([score[name] for score in scores] for name in ("ndcg@10", "mrr@10"))
    return ValidationMetrics(
        step=step,
        queries=len(held.queries),
        documents=len(held.documents),
        loss=loss if math.isfinite(loss) else None,
        ndcg=float(np.mean(ndcg)),
        mrr=float(np.mean(mrr)),
        query_ndcg=ndcg,
        query_mrr=mrr,
        seconds=time.monotonic() - began,
    )


def is_improvement(new: ValidationMetrics, best: Sequence[float] | None, by: str) -> bool:
    """Tell whether `new` is better than the best `rank` so far; the first of equals stays."""
    return new.loss is not None and (best is None or rank(new, by) > tuple(best))


def rank(metrics: ValidationMetrics, by: str) -> tuple[float, float]:
    """Return what is compared, greater is better: nDCG@10 and then the loss, or the other way round."""
    loss = -math.inf if metrics.loss is None else -metrics.loss
    return (loss, metrics.ndcg) if by == "loss" else (metrics.ndcg, loss)


def compare(base: ValidationMetrics, tuned: ValidationMetrics) -> dict[str, Any]:
    """Return tuned − base with its paired bootstrap interval, metric by metric, as plain values."""
    columns = [np.array([m.query_ndcg, m.query_mrr]).T for m in (base, tuned)]
    tests = dict(zip(("ndcg@10", "mrr@10"), paired_bootstrap(*columns), strict=True))
    return {
        "queries": tuned.queries,
        "documents": tuned.documents,
        "step": tuned.step,
        "base": {"loss": base.loss, "ndcg@10": base.ndcg, "mrr@10": base.mrr},
        "tuned": {"loss": tuned.loss, "ndcg@10": tuned.ndcg, "mrr@10": tuned.mrr},
        "tests": {name: vars(test) for name, test in tests.items()},
        "better": tests["ndcg@10"].better,
        "worse": tests["ndcg@10"].worse,
    }


def _retrieve(vector_ND: Any, held: ValidationSet) -> list[dict[str, float]]:
    place = {text: n for n, text in enumerate(held.texts)}
    query_QD = vector_ND[[place[text] for text in held.queries]]
    document_MD = vector_ND[[place[text] for text in held.documents]]
    cosine_QM = query_QD @ document_MD.T
    names = [text for _, text in held.documents]
    found = []
    for (_, own), answers, cosine_M in zip(held.queries, held.answers, cosine_QM, strict=True):
        # stable, so that ties stay in the order of hashes; one more than is looked at, for an anchor that is a document
        order = np.argsort(-cosine_M, kind="stable")[: _DEPTH + 1]
        ranking = [names[n] for n in order if names[n] != own][:_DEPTH]
        found.append(score_ranking(ranking, dict.fromkeys(answers, 1)))
    return found
