"""The weights of an encoder's two towers, chosen by measurement on the validation split.

The cosine of a joined vector is the mean of the towers' cosines with the shares w²/(w₁² + w₂²): so one embedding of all
texts serves every weighting, and the towers' own vectors are read off the slots of the joined one.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pgembed.encoders.spec import EncoderSpec
from pgembed.errors import EvaluationError
from pgembed.evaluation.bootstrap import PairedTest, paired_bootstrap
from pgembed.evaluation.dataset import Dataset
from pgembed.evaluation.evaluate import Encoder
from pgembed.evaluation.metrics import DEPTH, METRICS, Scores, score_rankings
from pgembed.progress import SILENT, Progress

METRIC = "ndcg@10"
"""What the weights are chosen by."""
_STEPS = 20  # shares from 0 to 1

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Weighting:
    """One pair of weights and what search with it is worth."""

    share: float
    """Of the first tower in the cosine."""
    weights: tuple[float, float]
    metrics: dict[str, float]


@dataclass(frozen=True)
class TunedWeights:
    """All weightings that were tried, and what follows."""

    towers: tuple[str, str]
    dataset: str
    queries: int
    documents: int
    trials: list[Weighting]
    best: Weighting
    equal: Weighting
    alone: Weighting
    """The better tower without the other."""
    over_equal: PairedTest
    """nDCG@10 of the best weights minus that of equal ones."""
    over_alone: PairedTest
    """The same against the better tower alone."""

    @property
    def alone_name(self) -> str:
        """Name of the better tower."""
        return self.towers[0 if self.alone.share == 1 else 1]

    @property
    def verdict(self) -> str:
        """What a person should do with this."""
        first, second = self.towers
        if not self.over_alone.better:
            return (
                f"{self.alone_name} alone ({self.alone.metrics[METRIC]:.3f}) is as good as the best pair "
                f"({self.best.metrics[METRIC]:.3f}): the other tower costs its time and memory for nothing here."
            )
        said = f"{first} {self.best.weights[0]:.3f}, {second} {self.best.weights[1]:.3f} measure best"
        if not self.over_equal.better:
            return f"{said}, but not beyond the interval of equal weights: equal ones will do."
        return f"{said}, beyond the interval of equal weights and of {self.alone_name} alone."

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {**asdict(self), "alone_name": self.alone_name, "verdict": self.verdict}


def tune_weights(encoder: Encoder, dataset: Dataset, *, progress: Progress = SILENT) -> TunedWeights:
    """Try shares of the first tower from 0 to 1 in twentieths on `dataset`, by exact search.

    The choice is by the mean of nDCG@10; among equals the one nearest to equal weights. Choose on the validation split:
    the figures of the chosen weights are a little too good where they were chosen.

    Raises:
        EvaluationError: the encoder has not two towers.
        EncoderError: it gives no usable vector for a text.
    """
    spec = encoder.manifest.spec
    if len(spec.towers) != 2:
        raise EvaluationError(
            f"The encoder {spec.name} has {len(spec.towers)} tower: weights are tuned between two.",
            remedy="Name an encoder of two towers by --artefact, --encoder or --generation.",
        )
    names = dataset.document_order
    total = len(names) + len(dataset.queries)
    with progress.task(f"embedding {dataset.name}", total, "texts") as task:
        documents = encoder.embed([dataset.documents[name] for name in names], role="passage", task=task)
        queries = encoder.embed(list(dataset.queries.values()), role="query", task=task)
    cosines = [q @ d.T for q, d in zip(split_towers(spec, queries), split_towers(spec, documents), strict=True)]
    scored: dict[float, Scores] = {}
    for step in range(_STEPS + 1):
        share = step / _STEPS
        scored[share] = _score(np.float32(share) * cosines[0] + np.float32(1 - share) * cosines[1], names, dataset)
    trials = [_weighting(share, scores) for share, scores in scored.items()]
    best = max(trials, key=lambda trial: (trial.metrics[METRIC], -abs(trial.share - 0.5)))
    alone = max((trials[0], trials[-1]), key=lambda trial: trial.metrics[METRIC])
    equal = trials[_STEPS // 2]
    return TunedWeights(
        towers=(spec.towers[0].name, spec.towers[1].name),
        dataset=dataset.name,
        queries=len(dataset.queries),
        documents=len(names),
        trials=trials,
        best=best,
        equal=equal,
        alone=alone,
        over_equal=_test(scored[equal.share], scored[best.share]),
        over_alone=_test(scored[alone.share], scored[best.share]),
    )


def split_towers(spec: EncoderSpec, vectors: Floats) -> list[Floats]:
    """Return each tower's own (N, slot) unit vectors out of joined ones, (N, 2560)."""
    parts, start = [], 0
    for tower in spec.towers:
        part = vectors[:, start : start + tower.slot]
        parts.append(part / np.linalg.norm(part, axis=1, keepdims=True).clip(1e-12))
        start += tower.slot
    return parts


def _score(cosines_QN: npt.NDArray[np.float32], names: list[str], dataset: Dataset) -> Scores:
    order = np.argsort(-cosines_QN, axis=1, kind="stable")[:, :DEPTH]
    rankings = {
        identifier: [names[n] for n in row] for identifier, row in zip(dataset.queries, order.tolist(), strict=True)
    }
    return score_rankings(rankings, dataset.judgements)


def _weighting(share: float, scores: Scores) -> Weighting:
    values = list(scores.values())
    metrics = {metric: float(np.mean([value[metric] for value in values])) for metric in METRICS}
    return Weighting(share, (math.sqrt(share), math.sqrt(1 - share)), metrics)


def _test(baseline: Scores, candidate: Scores) -> PairedTest:
    before, after = (np.array([[scores[query][METRIC]] for query in baseline]) for scores in (baseline, candidate))
    return paired_bootstrap(before, after)[0]
