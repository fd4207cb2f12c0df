"""Whether a graph of lower precision still finds what the float32 one finds: on the user's own code, or on a data set.

Reads and writes `evaluations`, through `evaluation`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.errors import EvaluationError
from pgembed.evaluation.dataset import Dataset
from pgembed.evaluation.evaluate import evaluate_dataset
from pgembed.progress import SILENT, Progress

METRIC = "ndcg@10"
MINIMUM_QUERIES = 20
"""With fewer, one query that is answered a rank later decides."""
_TEXTS = 512  # of each role, that vectors are compared on
_QUANTILES = (0.01, 0.05, 0.5)


@dataclass(frozen=True)
class Limits:
    """What is asked of a precision."""

    cosine: float
    """Least that the cosine to the float32 vector may be for 99 texts of 100."""
    points: float
    """Most that nDCG@10 may fall, in hundredths."""


LIMITS = {"float16": Limits(0.999, 0.5), "int8": Limits(0.97, 1.0)}
"""MiniLM on the standard library's functions: int8 per channel .990, and per tensor, which searches badly, .907."""


@dataclass(frozen=True)
class Cosines:
    """Cosines between the vectors of two graphs on the same texts."""

    texts: int
    least: float
    mean: float
    quantiles: dict[str, float]


@dataclass(frozen=True)
class Verdict:
    """What was measured of a variant; without a data set, its cosines on made-up texts alone."""

    precision: str
    limits: Limits
    cosines: Cosines
    dataset: str | None = None
    fingerprint: str | None = None
    queries: int = 0
    documents: int = 0
    metrics: dict[str, list[float]] | None = None
    """Metric → float32's mean, the variant's."""

    @property
    def drop(self) -> float | None:
        """Points of nDCG@10 that the variant loses."""
        return None if self.metrics is None else 100 * (self.metrics[METRIC][0] - self.metrics[METRIC][1])

    @property
    def close(self) -> bool:
        """Whether the vectors are near enough."""
        return self.cosines.quantiles["0.01"] >= self.limits.cosine

    @property
    def passed(self) -> bool:
        """Whether the variant may be used. Never without a data set."""
        # a hair of tolerance: what is a point in decimals is not one in binary
        return self.close and self.drop is not None and self.drop <= self.limits.points + 1e-9

    def to_json(self) -> dict[str, Any]:
        """Return plain values for the manifest."""
        return {
            **asdict(self),
            "drop": self.drop,
            "judged": self.metrics is not None,
            "passed": self.passed,
            "table": self.table(),
        }

    def table(self) -> list[list[str]]:
        """Return rows of what, float32's value, the variant's, what is asked, and whether it is met."""
        cosines, low = self.cosines, self.cosines.quantiles["0.01"]
        rows = [
            ["cosine, 99 texts of 100", "1", f"{low:.5f}", f"≥ {self.limits.cosine}", _word(self.close)],
            ["cosine, least", "1", f"{cosines.least:.5f}", "", ""],
            ["cosine, mean", "1", f"{cosines.mean:.5f}", "", ""],
        ]
        for metric, (before, after) in (self.metrics or {}).items():
            is_gate = metric == METRIC
            asked = f"≥ {before - self.limits.points / 100:.4f}" if is_gate else ""
            met = _word((self.drop or 0) <= self.limits.points + 1e-9) if is_gate else ""
            rows.append([metric, f"{before:.4f}", f"{after:.4f}", asked, met])
        return rows


def judge(
    conn: psycopg.Connection[Any],
    reference: OnnxEncoder,
    variant: OnnxEncoder,
    dataset: Dataset,
    *,
    progress: Progress = SILENT,
) -> Verdict:
    """Measure `variant` against `reference`, the float32 graph of the same encoder, on `dataset`.

    Raises:
        EvaluationError: the data set has too few queries to judge by.
        EncoderError: a graph gives no usable vector for a text.
    """
    if len(dataset.queries) < MINIMUM_QUERIES:
        raise EvaluationError(
            f"{dataset.name} has {len(dataset.queries)} queries; {MINIMUM_QUERIES} are needed to judge a precision by."
        )
    passages = [dataset.documents[name] for name in dataset.document_order[:_TEXTS]]
    queries = [dataset.queries[name] for name in sorted(dataset.queries)[:_TEXTS]]
    cosines = compare(reference, variant, passages, queries)
    before, after = (evaluate_dataset(conn, one, dataset, progress=progress) for one in (reference, variant))
    return Verdict(
        variant.manifest.precision,
        LIMITS[variant.manifest.precision],
        cosines,
        dataset.name,
        dataset.fingerprint,
        len(dataset.queries),
        len(dataset.documents),
        {metric: [before.mean(metric), after.mean(metric)] for metric in before.metrics},
    )


def unjudged(reference: OnnxEncoder, variant: OnnxEncoder, texts: Sequence[str]) -> Verdict:
    """Return the verdict on a variant where there is no data: cosines on `texts`, which decide nothing."""
    precision = variant.manifest.precision
    return Verdict(precision, LIMITS[precision], compare(reference, variant, texts, texts))


def compare(reference: OnnxEncoder, variant: OnnxEncoder, passages: Sequence[str], queries: Sequence[str]) -> Cosines:
    """Return the cosines between both encoders' vectors, each text in its role."""
    found: list[NDArray[np.float64]] = []
    for role, texts in (("passage", passages), ("query", queries)):
        a, b = (one.embed(texts, role=role).astype(np.float64) for one in (reference, variant))  # type: ignore[arg-type]
        found.append((a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)))
    cosines = np.concatenate(found)
    quantiles = {str(q): float(np.quantile(cosines, q)) for q in _QUANTILES}
    return Cosines(len(cosines), float(cosines.min()), float(cosines.mean()), quantiles)


def _word(met: bool) -> str:
    return "met" if met else "missed"
