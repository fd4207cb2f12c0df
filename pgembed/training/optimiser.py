"""Adam, its schedule, and the clipping of gradients."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from pgembed.training.sharding import whole

BETAS = (0.9, 0.999)
EPSILON = 1e-8


def make_adam(
    parameters: Iterable[nn.Parameter], learning_rate: float, *, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """Return Adam as published: bias-corrected moments, ε outside the root; and decoupled weight decay, if any.

    θ ← θ − rate · (m̂ / (√v̂ + ε) + weight_decay · θ). Biases and the gains of layer norms (everything of one
    dimension) do not decay: a norm's gain has no reason to be near zero, and a bias costs no capacity.

    Source: Kingma, Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1; Loshchilov, Hutter,
    "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2, with λ times the peak rate called λ, as in torch.
    """
    owned = list(parameters)
    if not weight_decay:
        return torch.optim.Adam(owned, lr=learning_rate, betas=BETAS, eps=EPSILON, foreach=True)
    groups = [
        {"params": [p for p in owned if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in owned if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, eps=EPSILON, foreach=True)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Let the next step have this rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def learning_rate(step: int, *, steps: int, peak: float, warmup: float, schedule: str = "linear") -> float:
    """Return the rate of `step` (from 0): linear up to `peak` over the share `warmup` of the steps, then as scheduled.

    `linear` and `cosine` go down to 0, `constant` stays. No step has the rate 0: the first takes one warm-up step's
    share of the peak, the last one step's share of the way down.

    Source: warm-up: Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 2.2; cosine: Loshchilov, Hutter,
    "SGDR", ICLR 2017, eq. 5, one period without restart, ending at 0.
    """
    rising = int(steps * warmup)
    if step < rising:
        return peak * (step + 1) / rising
    if schedule == "constant":
        return peak
    if schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))
    return peak * (steps - step) / (steps - rising)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale all gradients together so that their global L2 norm is at most `max_norm`; return the norm before.

    Source: Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", ICML 2013, sec. 3.2.
    """
    return float(whole(nn.utils.clip_grad_norm_(list(parameters), max_norm)))
