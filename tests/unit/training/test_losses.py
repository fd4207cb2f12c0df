"""Losses against NumPy written from the formulas, and gradients against central finite differences."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pgembed.encoders.folder import folder_spec
from pgembed.encoders.spec import EncoderSpec
from pgembed.errors import TrainingError
from pgembed.training.data import Triplet
from pgembed.training.encode import TextEncoder, distinct_texts
from pgembed.training.gradient import batch_loss
from pgembed.training.loss import (
    allowed_negatives,
    distance,
    hardest_negatives,
    in_batch_loss,
    semi_hard_negatives,
    triplet_loss,
)
from pgembed.training.model import load_model
from pgembed.training.objective import anchor_spread, batch_objective, check_widths
from pgembed.training.options import TrainingOptions


def units(*shape: int, seed: int) -> torch.Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(values, dim=-1)


@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
def test_triplet_loss_is_the_formula(kind: str) -> None:
    a, p, n = (units(50, 8, seed=seed) for seed in (1, 2, 3))

    def d(x: np.ndarray, y: np.ndarray) -> float:
        return float(1 - x @ y if kind == "cosine" else np.linalg.norm(x - y))

    each = [max(0.0, 0.2 + d(x, y) - d(x, z)) for x, y, z in zip(a.numpy(), p.numpy(), n.numpy(), strict=True)]
    value = triplet_loss(a, p, n, margin=0.2, kind=kind)
    assert float(value.loss) == pytest.approx(np.mean(each), abs=1e-12)
    assert value.zero_share == pytest.approx(np.mean(np.array(each) == 0))
    assert 0 < value.zero_share < 1


def test_in_batch_loss_is_the_formula() -> None:
    a, p, n = (units(6, 8, seed=seed) for seed in (1, 2, 3))
    bodies = torch.cat([p, n])
    allowed = torch.rand(6, 12, generator=torch.Generator().manual_seed(4)) < 0.7
    losses = []
    for i in range(6):
        wrong = [np.exp(20 * float(a[i] @ bodies[j])) for j in range(12) if allowed[i, j]]
        right = np.exp(20 * float(a[i] @ p[i]))
        losses.append(-np.log(right / (right + sum(wrong))))
    assert float(in_batch_loss(a, p, bodies, allowed, scale=20).loss) == pytest.approx(np.mean(losses), rel=1e-10)


def test_the_hardest_allowed_negative_is_taken() -> None:
    a, bodies = units(5, 8, seed=1), units(10, 8, seed=2)
    allowed = torch.rand(5, 10, generator=torch.Generator().manual_seed(3)) < 0.5
    found = hardest_negatives(a, bodies, allowed)
    for i in range(5):
        best = max((float(a[i] @ bodies[j]), j) for j in range(10) if allowed[i, j])[1]
        assert torch.equal(found[i], bodies[best])


@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
def test_a_semi_hard_negative_is_the_nearest_beyond_the_positive(kind: str) -> None:
    a, p, bodies = units(60, 4, seed=1), units(60, 4, seed=4), units(10, 4, seed=2)
    allowed = torch.rand(60, 10, generator=torch.Generator().manual_seed(3)) < 0.5
    allowed[:, 0] = True
    found = semi_hard_negatives(a, p, bodies, allowed)
    without = 0
    for i in range(60):
        right = float(distance(a[i : i + 1], p[i : i + 1], kind))
        far = {j: float(distance(a[i : i + 1], bodies[j : j + 1], kind)) for j in range(10) if allowed[i, j]}
        beyond = {j: d for j, d in far.items() if d > right}
        without += not beyond
        best = min(beyond, key=lambda j: beyond[j]) if beyond else max(far, key=lambda j: far[j])
        assert torch.equal(found[i], bodies[best])
    assert 0 < without < 30


def test_matryoshka_is_the_mean_over_vectors_that_are_cut_and_normalised(tiny_model: Path) -> None:
    one = folder_spec(tiny_model).towers[0]
    towers = (replace(one, slot=1536), replace(one, name="second", slot=1024, dimensions=16, weight=0.5))
    spec = EncoderSpec("pair", towers)
    batch = [triplet("a", "A", "X"), triplet("b", "B", "Y"), triplet("c", "C", "Z")]
    texts = distinct_texts(batch)
    parts = units(len(texts), 32, seed=1), units(len(texts), 16, seed=2)

    def joined(width: int) -> torch.Tensor:
        whole = torch.zeros(len(texts), 2560, dtype=torch.float64)
        for start, part, weight in ((0, parts[0], 1.0), (1536, parts[1], 0.5)):
            for n, row in enumerate(part):
                cut = row[:width]
                whole[n, start : start + len(cut)] = weight * cut / cut.norm()
        return whole / whole.norm(dim=1, keepdim=True)

    options = TrainingOptions(loss="in-batch", matryoshka=(24, 8))
    alone = [
        float(batch_objective(joined(width), texts, batch, TrainingOptions(loss="in-batch"), spec).loss)
        for width in (32, 24, 8)
    ]
    assert len(set(alone)) == 3
    found = batch_objective(joined(32), texts, batch, options, spec)
    assert float(found.loss) == pytest.approx(np.mean(alone), rel=1e-12)
    # the whole width is always one of them, and named again counts once
    again = batch_objective(joined(32), texts, batch, replace(options, matryoshka=(8, 32, 24)), spec)
    assert float(again.loss) == float(found.loss)
    with pytest.raises(TrainingError, match="33 is wider than the 32 dimensions"):
        check_widths(replace(options, matryoshka=(33,)), spec)


def test_spread_is_that_of_distinct_anchors() -> None:
    batch = [triplet("a", "A", "X"), triplet("a", "B", "Y"), triplet("c", "C", "Z"), triplet("d", "C", "Z")]
    texts = distinct_texts(batch)
    vectors = units(len(texts), 8, seed=5)
    anchors = vectors[[n for n, (role, _) in enumerate(texts) if role == "query"]].numpy()
    cosines = [float(x @ y) for n, x in enumerate(anchors) for y in anchors[n + 1 :]]
    assert len(cosines) == 3
    found = anchor_spread(vectors, texts, batch)
    assert found.mean_cosine == pytest.approx(np.mean(cosines), abs=1e-6)
    assert found.deviation == pytest.approx(math.sqrt(anchors.var(axis=0).sum()), abs=1e-6)
    assert anchor_spread(vectors, texts, batch[:2]).mean_cosine is None


def triplet(anchor: str, positive: str, negative: str) -> Triplet:
    return Triplet(0, "docstring", anchor, positive, negative)


def test_a_right_answer_is_never_a_negative() -> None:
    batch = [
        triplet("a", "A", "C"),  # its negative is the third row's positive
        triplet("a", "A2", "X"),  # the same question with another right answer
        triplet("c", "C", "A"),
        triplet("d", "A", "Y"),  # another question with the first row's answer
    ]
    bodies = [row.positive for row in batch] + [row.negative for row in batch]
    wrong = [{bodies[j] for j in range(8) if row[j]} for row in allowed_negatives(batch)]
    assert wrong == [{"C", "X", "Y"}, {"C", "X", "Y"}, {"A", "A2", "X", "Y"}, {"A2", "C", "X", "Y"}]


def test_each_distinct_text_is_encoded_once_in_its_role() -> None:
    batch = [triplet("a", "A", "B"), triplet("a", "A", "C"), Triplet(0, "code", "B", "A", "a")]
    assert distinct_texts(batch) == [
        ("passage", "A"), ("passage", "B"), ("passage", "C"), ("passage", "a"), ("query", "a"),
    ]  # fmt: skip


BATCH = [
    triplet("Add two numbers.", "def add(a, b): return a + b", "def sub(a, b): return a - b"),
    triplet("Read the file.", "def read(path): return open(path).read()", "def write(path, x): open(path, 'w')"),
    triplet("Sort it.", "def sort(xs): return sorted(xs)", "def add(a, b): return a + b"),
]


@pytest.mark.parametrize(
    "changes",
    [
        {"negatives": "mined"},
        {"negatives": "mined", "distance": "euclidean"},
        {"negatives": "hardest"},
        {"negatives": "semi-hard"},
        {"loss": "in-batch", "matryoshka": (8, 20)},
    ],
    ids=["triplet", "triplet, euclidean", "hardest", "semi-hard", "in-batch, Matryoshka"],
)
def test_gradients_through_the_whole_model_are_those_of_finite_differences(
    tiny_model: Path, changes: dict[str, object]
) -> None:
    # a wide margin: every triplet counts, and no loss is near its kink
    options = TrainingOptions(**{"loss": "triplet", "margin": 1.5, "max_tokens": 24, **changes})  # type: ignore[arg-type]
    spec = folder_spec(tiny_model)
    model = load_model(spec).double()
    encode = TextEncoder(spec, max_tokens=24)

    def loss() -> torch.Tensor:
        return batch_loss(model, encode, BATCH, options)

    loss().backward()
    random = np.random.default_rng(0)
    step, compared = 1e-5, 0
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            continue
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        # one entry that matters and one by chance
        for index in {int(gradient.abs().argmax()), int(random.integers(len(flat)))}:
            kept = float(flat[index])
            ends = []
            for sign in (1, -1):
                flat[index] = kept + sign * step
                with torch.no_grad():
                    ends.append(float(loss()))
            flat[index] = kept
            numeric = (ends[0] - ends[1]) / (2 * step)
            assert numeric == pytest.approx(float(gradient[index]), rel=1e-4, abs=1e-8), name
            compared += 1
    assert compared > 30
