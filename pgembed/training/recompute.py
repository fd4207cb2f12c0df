"""Gradient checkpointing: layers that are computed again on the way back instead of being kept.

Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, section 4.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pgembed.training.adapters import AdaptedTransformer, Rows


def recompute_layers(model: Any) -> None:
    """Let every layer of the towers keep its input alone. The gradient is the same, to the bit.

    By torch's own function: transformers' switch works in training mode, with its dropout, and runs a layer again
    without the hook that tells it whose task adapters a text has.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    for tower in model.towers:
        transformer = tower.transformer
        rows = transformer.rows if isinstance(transformer, AdaptedTransformer) else None
        # a cache of keys and values would be written to twice
        transformer.config.use_cache = False
        for layer in transformer.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                layer.forward = partial(_forward, layer.forward, rows)


def _forward(forward: Callable[..., Any], rows: Rows | None, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    of_this_batch = None if rows is None else rows.rows_B
    return checkpoint(partial(_run, forward, rows, of_this_batch), *args, use_reentrant=False, **kwargs)


def _run(
    forward: Callable[..., Any], rows: Rows | None, of_this_batch: Tensor | None, *args: Any, **kwargs: Any
) -> Any:
    if rows is not None and of_this_batch is not None:
        rows.rows_B = of_this_batch  # a later batch may have come between
    return forward(*args, **kwargs)
