"""Evaluations as rows, and two of them compared query by query. Reads and writes `evaluations`."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import numpy as np
import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from pgembed.db.sql import query
from pgembed.errors import EvaluationError
from pgembed.evaluation.bootstrap import PairedTest, bootstrap_means, paired_bootstrap
from pgembed.evaluation.dataset import Dataset
from pgembed.evaluation.metrics import METRICS, Scores

Connection = psycopg.Connection[Any]

_LANGUAGE = "ndcg@10 "  # and a language: the metric of its queries alone
_INDEX = "index "  # and a generation's number


@dataclass(frozen=True)
class Evaluation:
    """A row of `evaluations`, with its encoder's name."""

    id: int
    encoder_id: int | None
    """None where words alone were searched."""
    encoder: str
    dataset: str
    fingerprint: str
    documents: int
    queries: int
    settings: dict[str, Any]
    metrics: dict[str, dict[str, float]]
    """Metric → mean, low, high; beside these what `by_language` and `of_index` read."""
    per_query: Scores
    created_at: datetime
    reused: bool = False
    """Whether it had been made before and was only looked up."""

    def mean(self, metric: str) -> float:
        """Return the mean over the queries, such as of ndcg@10."""
        return self.metrics[metric]["mean"]

    @property
    def by_language(self) -> dict[str, dict[str, float]]:
        """Language → mean nDCG@10 of its queries with low and high, and how many; the most asked first."""
        found = {n.removeprefix(_LANGUAGE): v for n, v in self.metrics.items() if n.startswith(_LANGUAGE)}
        return dict(sorted(found.items(), key=lambda item: (-item[1]["queries"], item[0])))

    def of_index(self, generation_id: int) -> dict[str, float] | None:
        """Return what was measured of a generation's index with these queries; None where nothing was."""
        return self.metrics.get(f"{_INDEX}{generation_id}")

    def to_json(self) -> dict[str, Any]:
        """Return everything but the scores of each query."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "per_query"}
        indexes = {n.removeprefix(_INDEX): v for n, v in self.metrics.items() if n.startswith(_INDEX)}
        metrics = {metric: self.metrics[metric] for metric in METRICS}
        return {**values, "metrics": metrics, "by_language": self.by_language, "indexes": indexes}


@dataclass(frozen=True)
class Comparison:
    """`candidate` against `baseline` on the same queries: differences are candidate − baseline."""

    baseline: Evaluation
    candidate: Evaluation
    tests: dict[str, PairedTest]

    def to_json(self) -> dict[str, Any]:
        """Return both evaluations and the tests."""
        return {
            "baseline": self.baseline.to_json(),
            "candidate": self.candidate.to_json(),
            "tests": {metric: vars(test) for metric, test in self.tests.items()},
        }


def save(
    conn: Connection, encoder_id: int | None, dataset: Dataset, scores: Scores, settings: Mapping[str, Any]
) -> Evaluation:
    """Store what was measured, with the means and intervals that follow from it."""
    intervals = bootstrap_means(_matrix(scores))
    row = conn.execute(
        query("insert_evaluation"),
        {
            "encoder_id": encoder_id,
            "dataset": dataset.name,
            "fingerprint": dataset.fingerprint,
            "documents": len(dataset.documents),
            "queries": len(dataset.queries),
            "settings": Jsonb({**settings, "origin": dict(dataset.origin)}),
            "metrics": Jsonb({metric: vars(interval) for metric, interval in zip(METRICS, intervals, strict=True)}),
            "per_query": Jsonb(scores),
        },
    ).fetchone()
    assert row is not None  # noqa: S101 - RETURNING of an insert gives a row
    return get_evaluation(conn, int(row[0]))


def note_index(conn: Connection, evaluation: Evaluation, generation_id: int, measured: dict[str, float]) -> Evaluation:
    """Keep what was measured of a generation's index beside the scores, and return the evaluation with it."""
    return _note(conn, evaluation, {f"{_INDEX}{generation_id}": measured})


def note_languages(conn: Connection, evaluation: Evaluation, dataset: Dataset) -> Evaluation:
    """Keep nDCG@10 by the language of the queries, where that is known, and return the evaluation with it."""
    spoken = by_language(evaluation.per_query, dataset.languages)
    noted = {f"{_LANGUAGE}{language}": values for language, values in spoken.items()}
    return evaluation if noted.items() <= evaluation.metrics.items() else _note(conn, evaluation, noted)


def by_language(scores: Scores, languages: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Return language → mean, low and high of nDCG@10 over its queries, and their number."""
    groups: dict[str, list[float]] = {}
    for identifier in sorted(scores):
        if identifier in languages:
            groups.setdefault(languages[identifier], []).append(scores[identifier]["ndcg@10"])
    return {
        language: {**vars(bootstrap_means(np.array(values)[:, None])[0]), "queries": len(values)}
        for language, values in groups.items()
    }


def find(conn: Connection, encoder_id: int | None, fingerprint: str, settings: Mapping[str, Any]) -> Evaluation | None:
    """Return the newest evaluation of this encoder on this data set with these settings; None where there is none."""
    row = conn.execute(
        query("find_evaluation"),
        {"encoder_id": encoder_id, "fingerprint": fingerprint, "settings": Jsonb(dict(settings))},
    ).fetchone()
    return None if row is None else _get(conn, int(row[0]), reused=True)


def get_evaluation(conn: Connection, evaluation_id: int) -> Evaluation:
    """Return one evaluation.

    Raises:
        EvaluationError: there is none of this number.
    """
    return _get(conn, evaluation_id, reused=False)


def compare(conn: Connection, baseline_id: int, candidate_id: int) -> Comparison:
    """Test two stored evaluations against each other; see `compare_evaluations`."""
    return compare_evaluations(get_evaluation(conn, baseline_id), get_evaluation(conn, candidate_id))


def compare_evaluations(baseline: Evaluation, candidate: Evaluation) -> Comparison:
    """Test candidate − baseline by the paired bootstrap, metric by metric.

    Raises:
        EvaluationError: they were not made on the same queries, documents and judgements.
    """
    if baseline.fingerprint != candidate.fingerprint:
        raise EvaluationError(
            f"Evaluations {baseline.id} ({baseline.dataset}) and {candidate.id} ({candidate.dataset}) were made on "
            "different data: their figures do not compare.",
            remedy="Evaluate both on what is there now: pgembed eval --compare A B",
        )
    tests = paired_bootstrap(_matrix(baseline.per_query), _matrix(candidate.per_query))
    return Comparison(baseline, candidate, dict(zip(METRICS, tests, strict=True)))


def _get(conn: Connection, evaluation_id: int, *, reused: bool) -> Evaluation:
    with conn.cursor(row_factory=class_row(Evaluation)) as cursor:
        found = cursor.execute(query("get_evaluation"), {"id": evaluation_id, "reused": reused}).fetchone()
    if found is None:
        raise EvaluationError(f"There is no evaluation {evaluation_id}.")
    return found


def _note(conn: Connection, evaluation: Evaluation, metrics: Mapping[str, Mapping[str, float]]) -> Evaluation:
    conn.execute(query("note_evaluation_metrics"), {"id": evaluation.id, "metrics": Jsonb(dict(metrics))})
    return _get(conn, evaluation.id, reused=evaluation.reused)


def _matrix(scores: Scores) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return (queries in the order of their ids, METRICS)."""
    return np.array([[scores[identifier][metric] for metric in METRICS] for identifier in sorted(scores)])
