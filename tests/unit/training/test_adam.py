"""Adam, clipping, weight decay and schedules against NumPy, written from the papers, and against torch."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch

from pgembed.training.optimiser import clip_gradients, learning_rate, make_adam, set_rate

STEPS = 200

# Every schedule once more, from its description. `s` is the step from 0 of 200, of which 20 rise.
SCHEDULES: dict[str, Callable[[int], float]] = {
    "linear": lambda s: (s + 1) / 20 if s < 20 else (200 - s) / 180,
    "cosine": lambda s: (s + 1) / 20 if s < 20 else (1 + math.cos(math.pi * (s - 20) / 180)) / 2,
    "constant": lambda s: min(1.0, (s + 1) / 20),
}


def gradients_of(step: int, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Return gradients of very different size, some of them zero: there the place of ε shows."""
    random = np.random.default_rng(step)
    return [random.normal(size=shape) * 10.0 ** random.integers(-9, 3) * (step % 7 > 0) for shape in shapes]


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_step_is_that_of_the_papers(schedule: str, decay: float) -> None:
    shapes: list[tuple[int, ...]] = [(7, 3), (5,)]
    theta = [np.random.default_rng(9).normal(size=shape) for shape in shapes]
    parameters = [torch.nn.Parameter(torch.tensor(values)) for values in theta]
    optimiser = make_adam(parameters, 1e-2, weight_decay=decay)
    m = [np.zeros_like(values) for values in theta]
    v = [np.zeros_like(values) for values in theta]
    for t in range(1, STEPS + 1):
        gradients = gradients_of(t, shapes)
        rate = 1e-2 * SCHEDULES[schedule](t - 1)
        norm = math.sqrt(sum((g**2).sum() for g in gradients))
        for i, g in enumerate(g * min(1, 1 / (norm + 1e-6)) for g in gradients):
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g**2
            step = (m[i] / (1 - 0.9**t)) / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-8)
            # the matrix decays, by the weights before the step; the bias does not
            theta[i] = theta[i] - rate * (step + (decay * theta[i] if theta[i].ndim > 1 else 0))
        for parameter, g in zip(parameters, gradients, strict=True):
            parameter.grad = torch.tensor(g)
        set_rate(optimiser, learning_rate(t - 1, steps=STEPS, peak=1e-2, warmup=0.1, schedule=schedule))
        assert clip_gradients(parameters, 1.0) == pytest.approx(norm, rel=1e-12)
        optimiser.step()
        for parameter, expected in zip(parameters, theta, strict=True):
            np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_those_of_torch(decay: float) -> None:
    shapes: list[tuple[int, ...]] = [(7, 3), (4, 4)]
    ours, theirs = (
        [torch.nn.Parameter(torch.tensor(np.random.default_rng(9).normal(size=shape))) for shape in shapes]
        for _ in range(2)
    )
    optimiser = make_adam(ours, 1e-2, weight_decay=decay)
    reference = torch.optim.AdamW(theirs, lr=1e-2, weight_decay=decay, foreach=False)
    schedule = torch.optim.lr_scheduler.LambdaLR(reference, SCHEDULES["cosine"])
    for t in range(1, 61):
        for parameters in (ours, theirs):
            for parameter, g in zip(parameters, gradients_of(t, shapes), strict=True):
                parameter.grad = torch.tensor(g)
        set_rate(optimiser, learning_rate(t - 1, steps=STEPS, peak=1e-2, warmup=0.1, schedule="cosine"))
        clip_gradients(ours, 1.0)
        torch.nn.utils.clip_grad_norm_(theirs, 1.0, foreach=False)
        optimiser.step()
        reference.step()
        schedule.step()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_gradients_within_the_norm_are_left_alone() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    parameter.grad = torch.tensor([0.3, 0.4], dtype=torch.float64)
    assert clip_gradients([parameter], 1.0) == pytest.approx(0.5)
    assert parameter.grad.tolist() == [0.3, 0.4]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_rate_rises_to_its_peak_and_falls_without_reaching_zero(schedule: str) -> None:
    rates = [learning_rate(step, steps=100, peak=2.0, warmup=0.1, schedule=schedule) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == rates[9] == rates[10] == 2.0
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert 0 < rates[-1] <= 2.0 / 90
    assert learning_rate(0, steps=1, peak=2.0, warmup=0.1, schedule=schedule) == 2.0
