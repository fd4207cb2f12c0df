"""Trained weights mixed with the base's, for good or for the length of a validation.

Source: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, equation 1.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pgembed.training.lora import is_down_projection
from pgembed.training.sharding import divided_like, whole

Weights = dict[str, Tensor]


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that training may change, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def copy_weights(model: nn.Module) -> Weights:
    """Return a copy of the trainable parameters."""
    return {name: parameter.detach().clone() for name, parameter in trainable(model).items()}


def whole_weights(model: nn.Module) -> Weights:
    """Return a copy of the trainable parameters, put together where processes hold parts of them."""
    return {name: whole(parameter.detach()).clone() for name, parameter in trainable(model).items()}


def set_weights(model: nn.Module, weights: Weights) -> None:
    """Put `weights` in place, to the bit; whole ones, or divided as the model's are."""
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            parameter.copy_(divided_like(weights[name], parameter))


def mix(model: nn.Module, base: Weights, share: float) -> None:
    """Make the model base + share · (trained − base).

    Of a low-rank update B·A only B is mixed, which starts at zero: the product is then that share of the update.
    """
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            if not is_down_projection(name):
                parameter.copy_(torch.lerp(base[name], parameter, share))


@contextmanager
def mixed(model: nn.Module, base: Weights, share: float) -> Iterator[None]:
    """Have the model mixed while the block runs, and as it was, to the bit, afterwards."""
    if share == 1:
        yield
        return
    trained = copy_weights(model)
    mix(model, base, share)
    try:
        yield
    finally:
        set_weights(model, trained)
