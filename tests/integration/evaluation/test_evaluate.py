"""Evaluations through the database against brute force; stored, found again, and compared."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
import pytest

from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.errors import EvaluationError
from pgembed.evaluation.dataset import Dataset
from pgembed.evaluation.evaluate import evaluate_dataset
from pgembed.evaluation.held_out import evaluate_held_out
from pgembed.evaluation.metrics import METRICS
from pgembed.evaluation.store import compare, compare_evaluations, get_evaluation

AddChunk = Callable[..., int]

_WORDS = ["read", "write", "parse", "send", "close", "merge", "sort", "count", "file", "socket", "table", "node"]


def _dataset(size: int = 120, queries: int = 60) -> Dataset:
    """Documents of random words; each query is its document without the last of them."""
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(_WORDS, size=12)) + f" {number}" for number in range(size)]
    asked = {f"q{number}": " ".join(texts[number].split()[:-1]) for number in range(queries)}
    return Dataset(
        "made-up",
        asked,
        {f"d{number}": text for number, text in enumerate(texts)},
        {f"q{number}": {f"d{number}": 1} for number in range(queries)},
    )


class _Blunted:
    """An encoder with what it gives replaced, under a fingerprint of its own."""

    def __init__(self, encoder: OnnxEncoder, name: str, change: Any) -> None:
        self._encoder, self._change = encoder, change
        self.manifest = replace(encoder.manifest, fingerprint=name)

    def embed(self, texts: Sequence[str], **options: Any) -> npt.NDArray[np.float32]:
        return self._change(self._encoder.embed(texts, **options))


def _noisy(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    noise = np.random.default_rng(len(vectors)).normal(scale=0.3, size=vectors.shape).astype(np.float32)
    return vectors + np.where(np.arange(2560) < 32, noise, 0)


def test_scores_are_those_of_brute_force(conn: psycopg.Connection, encoder: OnnxEncoder) -> None:
    dataset = _dataset()
    evaluation = evaluate_dataset(conn, encoder, dataset)
    documents = encoder.embed(list(dataset.documents.values()), role="passage").astype(np.float64)
    queries = encoder.embed(list(dataset.queries.values()), role="query").astype(np.float64)
    cosines = queries @ documents.T
    ranks = 1 + (cosines > np.diag(cosines)[:, None] + 1e-9).sum(axis=1)
    assert len(set(ranks)) > 5  # otherwise little is tested
    for number, rank in enumerate(ranks):
        scores = evaluation.per_query[f"q{number}"]
        assert scores["mrr@10"] == pytest.approx(1 / rank if rank <= 10 else 0)
        assert scores["ndcg@10"] == pytest.approx(1 / math.log2(rank + 1) if rank <= 10 else 0)
        assert scores["recall@100"] == float(rank <= 100)
    for metric in METRICS:
        found = evaluation.metrics[metric]
        assert found["mean"] == pytest.approx(np.mean([scores[metric] for scores in evaluation.per_query.values()]))
        assert found["low"] <= found["mean"] <= found["high"]
    assert (evaluation.queries, evaluation.documents, evaluation.dataset) == (60, 120, "made-up")


def test_it_is_a_row_and_is_not_measured_twice(conn: psycopg.Connection, encoder: OnnxEncoder) -> None:
    dataset = _dataset(30, 10)
    first = evaluate_dataset(conn, encoder, dataset)
    assert not first.reused
    stored = get_evaluation(conn, first.id)
    assert stored == first
    second = evaluate_dataset(conn, encoder, replace(dataset, name="renamed"))
    assert second == replace(first, reused=True)
    third = evaluate_dataset(conn, encoder, dataset, again=True)
    assert third.id != first.id
    assert third.metrics == first.metrics
    assert not third.reused


def test_other_data_another_encoder_and_another_graph_are_measured(
    conn: psycopg.Connection, encoder: OnnxEncoder
) -> None:
    dataset = _dataset(30, 10)
    ids = {evaluate_dataset(conn, encoder, dataset).id, evaluate_dataset(conn, encoder, _dataset(31, 10)).id}
    ids.add(evaluate_dataset(conn, _Blunted(encoder, "another", _noisy), dataset).id)
    coarser = _Blunted(encoder, encoder.manifest.fingerprint, _noisy)
    coarser.manifest = replace(coarser.manifest, files={**coarser.manifest.files, "model.onnx": "0" * 64})
    ids.add(evaluate_dataset(conn, coarser, dataset).id)
    assert len(ids) == 4


def test_an_encoder_that_collapsed_is_not_perfect(conn: psycopg.Connection, encoder: OnnxEncoder) -> None:
    collapsed = _Blunted(encoder, "collapsed", lambda vectors: np.broadcast_to(vectors[:1] * 0 + 1, vectors.shape))
    evaluation = evaluate_dataset(conn, collapsed, _dataset())
    assert evaluation.mean("ndcg@10") < 0.15  # by chance 0.04: the ten first places, discounted, of 120


def test_a_worse_encoder_is_told_from_a_better_one(conn: psycopg.Connection, encoder: OnnxEncoder) -> None:
    dataset = _dataset()
    good = evaluate_dataset(conn, encoder, dataset)
    bad = evaluate_dataset(conn, _Blunted(encoder, "noisy", _noisy), dataset)
    forth, back = compare(conn, good.id, bad.id), compare_evaluations(bad, good)
    assert forth.tests["ndcg@10"].worse
    assert back.tests["ndcg@10"].better
    assert forth.tests["ndcg@10"].difference == pytest.approx(bad.mean("ndcg@10") - good.mean("ndcg@10"))
    assert set(forth.tests) == set(METRICS)


def test_evaluations_on_different_data_do_not_compare(conn: psycopg.Connection, encoder: OnnxEncoder) -> None:
    one, other = (evaluate_dataset(conn, encoder, _dataset(size, 10)) for size in (30, 31))
    with pytest.raises(EvaluationError, match="different data"):
        compare(conn, one.id, other.id)
    with pytest.raises(EvaluationError, match="no evaluation 999"):
        compare(conn, one.id, 999)


def test_held_out_code_is_evaluated_and_kept(
    conn: psycopg.Connection, encoder: OnnxEncoder, add_chunk: AddChunk
) -> None:
    for number, verb in enumerate(_WORDS):
        add_chunk(f"def {verb}_it(x):\n    return {verb}(x, {number})", f"To {verb} it, and {verb} more.", symbol=verb)
    plain = evaluate_held_out(conn, encoder, max_queries=10)
    assert (plain.dataset, plain.queries, plain.documents) == ("held-out", 10, 12)
    assert plain.settings["origin"]["split"] == "test"
    masked = evaluate_held_out(conn, encoder, max_queries=10, mask_names=True)
    assert masked.fingerprint != plain.fingerprint
    assert evaluate_held_out(conn, encoder, max_queries=10).reused
