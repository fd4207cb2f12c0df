"""The gradient of a step's loss: in one piece, or with the graph of a few texts in memory at a time.

A batch that is large teaches more (in-batch negatives), and its graph is what fills the memory. The three ways below
give the same gradient, but for the order of sums:

whole         all texts with their graph, the loss, back through everything;
accumulated   where a triplet's loss depends on no other triplet: parts of the batch, each weighted by its share;
cached        else: all texts without a graph, the loss's gradient by the vectors, and then a part at a time again, with
              its graph, back from that gradient. A third more work: the texts go forward twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pgembed.training.data import Triplet
from pgembed.training.encode import TextEncoder, distinct_texts, encode_group, in_order
from pgembed.training.model import EncoderModel
from pgembed.training.objective import Spread, anchor_spread, batch_objective, rows_are_independent
from pgembed.training.options import TrainingOptions

# Anchor, positive and negative: what `micro_batch` triplets have at most.
_TEXTS_OF_TRIPLET = 3


@dataclass(frozen=True)
class BatchValue:
    """What a batch gave, beside the gradients."""

    loss: float
    zero_share: float
    spread: Spread


def accumulate_gradients(
    model: EncoderModel, encode: TextEncoder, batch: Sequence[Triplet], options: TrainingOptions, *, bf16: bool = False
) -> BatchValue:
    """Add the gradient of the batch's mean loss to every parameter's, and return the loss.

    Each distinct text is encoded once: of the batch, of a part of it, or, where gradients are cached, once without a
    graph and once with it.
    """
    if options.micro_batch is None or options.micro_batch >= len(batch):
        return _whole(model, encode, batch, options, bf16=bf16)
    if rows_are_independent(options):
        return _accumulated(model, encode, batch, options, options.micro_batch, bf16=bf16)
    return _cached(model, encode, batch, options, options.micro_batch, bf16=bf16)


def batch_loss(
    model: EncoderModel, encode: TextEncoder, batch: Sequence[Triplet], options: TrainingOptions, *, bf16: bool = False
) -> torch.Tensor:
    """Return the loss of one batch, a differentiable scalar."""
    texts = distinct_texts(batch)
    return batch_objective(encode(model, texts, bf16=bf16), texts, batch, options, model.spec).loss


def _whole(
    model: EncoderModel, encode: TextEncoder, batch: Sequence[Triplet], options: TrainingOptions, *, bf16: bool
) -> BatchValue:
    texts = distinct_texts(batch)
    vector_ND = encode(model, texts, bf16=bf16)
    value = batch_objective(vector_ND, texts, batch, options, model.spec)
    value.loss.backward()
    return BatchValue(float(value.loss.detach()), value.zero_share, anchor_spread(vector_ND, texts, batch))


def _accumulated(
    model: EncoderModel,
    encode: TextEncoder,
    batch: Sequence[Triplet],
    options: TrainingOptions,
    size: int,
    *,
    bf16: bool,
) -> BatchValue:
    loss = zeros = 0.0
    vectors, texts_of_all = [], []
    for start in range(0, len(batch), size):
        part = batch[start : start + size]
        texts = distinct_texts(part)
        vector_ND = encode(model, texts, bf16=bf16)
        value = batch_objective(vector_ND, texts, part, options, model.spec)
        share = len(part) / len(batch)
        (value.loss * share).backward()
        loss += share * float(value.loss.detach())
        zeros += share * value.zero_share
        vectors.append(vector_ND.detach())
        texts_of_all += texts
    return BatchValue(loss, zeros, anchor_spread(torch.cat(vectors), texts_of_all, batch))


def _cached(
    model: EncoderModel,
    encode: TextEncoder,
    batch: Sequence[Triplet],
    options: TrainingOptions,
    size: int,
    *,
    bf16: bool,
) -> BatchValue:
    """Source: Gao, Zhang, Han, Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021,
    section 3. Dropout is off, so that the second pass gives the first one's vectors without its random state.
    """
    texts = distinct_texts(batch)
    groups = encode.groups(texts, at_most=_TEXTS_OF_TRIPLET * size)
    with torch.no_grad():
        vector_ND = in_order(groups, [encode_group(model, group, bf16=bf16) for group in groups])
    vector_ND.requires_grad_()
    value = batch_objective(vector_ND, texts, batch, options, model.spec)
    value.loss.backward()
    gradient_ND = vector_ND.grad
    assert gradient_ND is not None  # noqa: S101 - every loss is a function of the vectors
    for group in groups:
        # Only texts that the loss depends on: a negative that no anchor chose has a gradient of zero. But one group in
        # any case: Adam goes on by its moments where a gradient is zero, and stands still where there is none.
        if group is groups[0] or gradient_ND[group.places].any():
            encode_group(model, group, bf16=bf16).backward(gradient_ND[group.places])
    return BatchValue(float(value.loss.detach()), value.zero_share, anchor_spread(vector_ND, texts, batch))
