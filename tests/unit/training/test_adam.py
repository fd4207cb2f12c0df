"""Adam, clipping and the schedule against NumPy, written from the papers."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from pgembed.training.optimiser import clip_gradients, learning_rate, make_adam


def test_every_step_is_that_of_the_paper() -> None:
    random = np.random.default_rng(0)
    start = [random.normal(size=shape) for shape in ((7, 3), (5,))]
    parameters = [torch.nn.Parameter(torch.tensor(values)) for values in start]
    optimiser = make_adam(parameters, 1e-3)
    theta = [values.copy() for values in start]
    m = [np.zeros_like(values) for values in theta]
    v = [np.zeros_like(values) for values in theta]
    for t in range(1, 201):
        rate = learning_rate(t - 1, steps=200, peak=1e-2, warmup=0.1)
        # gradients of very different size, some of them zero: there the place of ε shows
        gradients = [random.normal(size=x.shape) * 10.0 ** random.integers(-9, 3) * (t % 7 > 0) for x in theta]
        norm = math.sqrt(sum((g**2).sum() for g in gradients))
        clipped = [g * min(1, 1 / (norm + 1e-6)) for g in gradients]
        for i, g in enumerate(clipped):
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g**2
            theta[i] -= rate * (m[i] / (1 - 0.9**t)) / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-8)
        for parameter, g in zip(parameters, gradients, strict=True):
            parameter.grad = torch.tensor(g)
        for group in optimiser.param_groups:
            group["lr"] = rate
        assert clip_gradients(parameters, 1.0) == pytest.approx(norm, rel=1e-12)
        optimiser.step()
        for parameter, expected in zip(parameters, theta, strict=True):
            np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_gradients_within_the_norm_are_left_alone() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    parameter.grad = torch.tensor([0.3, 0.4], dtype=torch.float64)
    assert clip_gradients([parameter], 1.0) == pytest.approx(0.5)
    assert parameter.grad.tolist() == [0.3, 0.4]


def test_the_rate_rises_to_its_peak_and_falls_without_reaching_zero() -> None:
    rates = [learning_rate(step, steps=100, peak=2.0, warmup=0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == rates[9] == rates[10] == 2.0
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(2.0 / 90)
    assert learning_rate(0, steps=1, peak=2.0, warmup=0.1) == 2.0
