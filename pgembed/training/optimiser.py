"""Adam, its schedule, and the clipping of gradients."""

from collections.abc import Iterable

import torch
from torch import nn

BETAS = (0.9, 0.999)
EPSILON = 1e-8


def make_adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Adam:
    """Return Adam as published: bias-corrected moments, ε outside the root, no weight decay.

    Source: Kingma, Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.
    """
    return torch.optim.Adam(parameters, lr=learning_rate, betas=BETAS, eps=EPSILON, foreach=True)


def learning_rate(step: int, *, steps: int, peak: float, warmup: float) -> float:
    """Return the rate of `step` (from 0): linear up to `peak` over the share `warmup` of the steps, then down to 0.

    No step has the rate 0: the first takes one warm-up step's share of the peak, the last one step's share of the way
    down.
    """
    rising = int(steps * warmup)
    if step < rising:
        return peak * (step + 1) / rising
    return peak * (steps - step) / (steps - rising)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale all gradients together so that their global L2 norm is at most `max_norm`; return the norm before.

    Source: Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", ICML 2013, sec. 3.2.
    """
    return float(nn.utils.clip_grad_norm_(list(parameters), max_norm))
