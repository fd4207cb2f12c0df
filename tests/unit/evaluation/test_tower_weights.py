"""The weights of two towers: the best share by brute force, and a plain word where one tower alone is as good."""

import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pgembed.encoders.spec import EncoderSpec, Role, TowerSpec
from pgembed.errors import EvaluationError
from pgembed.evaluation.dataset import Dataset
from pgembed.evaluation.tower_weights import split_towers, tune_weights
from pgembed.progress import Task

COUNT = 60
ONE = TowerSpec("one", "folder:/none", 64, 1536, "mean", False, 32)
TWO = replace(ONE, name="two", dimensions=32, slot=1024)
PAIR = EncoderSpec("pair", (ONE, TWO))
DATA = Dataset(
    "made up",
    {f"q{i}": f"query {i}" for i in range(COUNT)},
    {f"d{i}": f"document {i}" for i in range(COUNT)},
    {f"q{i}": {f"d{i}": 1} for i in range(COUNT)},
)


class Made:
    """Vectors by text: what a tower gives for query i is its document's vector and noise."""

    def __init__(self, noise: tuple[float, ...], spec: EncoderSpec = PAIR) -> None:
        self.noise, self.spec = noise, spec
        self.manifest: Any = SimpleNamespace(spec=spec)

    def towers(self, text: str) -> list[npt.NDArray[np.float64]]:
        number = int(text.split()[1])
        parts = []
        for n, (tower, noise) in enumerate(zip(self.spec.towers, self.noise, strict=True)):
            part = np.random.default_rng([n, number]).normal(size=tower.dimensions)
            if text.startswith("query"):
                part = part + noise * np.random.default_rng([n, number, 1]).normal(size=tower.dimensions)
            parts.append(part / np.linalg.norm(part))
        return parts

    def embed(
        self,
        texts: Sequence[str],
        *,
        role: Role,  # noqa: ARG002 - the vectors are of the text alone
        max_tokens: int | None = None,  # noqa: ARG002
        task: Task | None = None,  # noqa: ARG002
    ) -> npt.NDArray[np.float32]:
        vectors = np.zeros((len(texts), 2560), dtype=np.float32)
        for row, text in enumerate(texts):
            start = 0
            for tower, part in zip(self.spec.towers, self.towers(text), strict=True):
                vectors[row, start : start + tower.dimensions] = tower.weight * part
                start += tower.slot
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


def test_the_towers_are_read_off_the_joined_vector_whatever_its_weights() -> None:
    weighted = EncoderSpec("pair", (replace(ONE, weight=0.9), replace(TWO, weight=0.3)))
    made = Made((1.0, 1.0), weighted)
    texts = ["query 1", "document 2"]
    parts = split_towers(weighted, made.embed(texts, role="query"))
    for row, text in enumerate(texts):
        for part, expected in zip(parts, made.towers(text), strict=True):
            np.testing.assert_allclose(part[row, : len(expected)], expected, atol=1e-6)


def test_the_best_share_is_that_of_brute_force() -> None:
    made = Made((2.2, 1.6))
    tuned = tune_weights(made, DATA)
    queries = [made.towers(text) for text in DATA.queries.values()]
    documents = [made.towers(DATA.documents[f"d{i}"]) for i in range(COUNT)]
    for trial in tuned.trials:
        gains = []
        for i, query in enumerate(queries):
            scores = [
                trial.share * float(query[0] @ d[0]) + (1 - trial.share) * float(query[1] @ d[1]) for d in documents
            ]
            place = 1 + sum(score > scores[i] for score in scores)
            gains.append(1 / math.log2(place + 1) if place <= 10 else 0.0)
        assert trial.metrics["ndcg@10"] == pytest.approx(np.mean(gains), abs=1e-9)
        assert math.hypot(*trial.weights) == pytest.approx(1)
    assert tuned.best.metrics["ndcg@10"] == max(trial.metrics["ndcg@10"] for trial in tuned.trials)
    assert 0 < tuned.best.share < 1
    assert tuned.over_alone.better
    assert "measure best" in tuned.verdict
    # the weights that are named give the share, by what an encoder does with them
    one, two = tuned.best.weights
    assert one**2 / (one**2 + two**2) == pytest.approx(tuned.best.share)


@pytest.mark.parametrize(("noise", "name"), [((0.3, 50.0), "one"), ((50.0, 0.3), "two")])
def test_a_tower_that_is_as_good_alone_is_named(noise: tuple[float, float], name: str) -> None:
    tuned = tune_weights(Made(noise), DATA)
    assert tuned.alone_name == name
    assert tuned.verdict.startswith(f"{name} alone")
    assert not tuned.over_alone.better


def test_equal_towers_keep_equal_weights() -> None:
    tuned = tune_weights(Made((0.0, 0.0)), DATA)
    assert tuned.best.share == 0.5


def test_an_encoder_of_one_tower_has_nothing_to_tune() -> None:
    alone = EncoderSpec("alone", (replace(ONE, slot=2560),))
    with pytest.raises(EvaluationError, match="1 tower"):
        tune_weights(Made((1.0,), alone), DATA)
