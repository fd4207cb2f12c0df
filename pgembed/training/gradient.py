"""The gradient of a step's loss: in one piece, or with the graph of a few texts in memory at a time.

A batch that is large teaches more (in-batch negatives), and its graph is what fills the memory. The three ways below
give the same gradient, but for the order of sums:

whole         all texts with their graph, the loss, back through everything;
accumulated   where a triplet's loss depends on no other triplet: parts of the batch, each weighted by its share;
cached        else: all texts without a graph, the loss's gradient by the vectors, and then a part at a time again, with
              its graph, back from that gradient. A third more work: the texts go forward twice.

Among several processes (`Processes`) each has a share of the texts, or of the triplets where those are accumulated.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pgembed.training.data import Triplet
from pgembed.training.distributed import ALONE, Processes
from pgembed.training.encode import (
    Text,
    TextEncoder,
    anchor_text,
    distinct_texts,
    encode_group,
    encode_together,
    in_order,
)
from pgembed.training.mixture import trainable
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
    model: EncoderModel,
    encode: TextEncoder,
    batch: Sequence[Triplet],
    options: TrainingOptions,
    *,
    bf16: bool = False,
    among: Processes = ALONE,
) -> BatchValue:
    """Add the gradient of the batch's mean loss to every parameter's, on every process, and return the loss.

    Each distinct text is encoded once: of the batch, of a part of it, or, where gradients are cached, once without a
    graph and once with it. `micro_batch` is what one process has in memory.
    """
    own = -(-len(batch) // among.size)
    if options.micro_batch is None or options.micro_batch >= own:
        value = _whole(model, encode, batch, options, among, bf16=bf16)
    elif rows_are_independent(options) and not among.shards:
        value = _accumulated(model, encode, batch, options, options.micro_batch, among, bf16=bf16)
    else:
        value = _cached(model, encode, batch, options, options.micro_batch, among, bf16=bf16)
    among.add_gradients(list(trainable(model).values()))
    return value


def batch_loss(
    model: EncoderModel, encode: TextEncoder, batch: Sequence[Triplet], options: TrainingOptions, *, bf16: bool = False
) -> torch.Tensor:
    """Return the loss of one batch, a differentiable scalar."""
    texts = distinct_texts(batch)
    return batch_objective(encode(model, texts, bf16=bf16), texts, batch, options, model.spec).loss


def _whole(
    model: EncoderModel,
    encode: TextEncoder,
    batch: Sequence[Triplet],
    options: TrainingOptions,
    among: Processes,
    *,
    bf16: bool,
) -> BatchValue:
    texts = distinct_texts(batch)
    vector_ND = encode_together(model, encode, texts, among, bf16=bf16)
    value = batch_objective(vector_ND, texts, batch, options, model.spec)
    value.loss.backward()
    return BatchValue(float(value.loss.detach()), value.zero_share, anchor_spread(vector_ND, texts, batch))


def _accumulated(
    model: EncoderModel,
    encode: TextEncoder,
    batch: Sequence[Triplet],
    options: TrainingOptions,
    size: int,
    among: Processes,
    *,
    bf16: bool,
) -> BatchValue:
    loss = zeros = 0.0
    vectors, texts_of_all = [], []
    own = batch[among.rank :: among.size]
    for start in range(0, len(own), size):
        part = own[start : start + size]
        texts = distinct_texts(part)
        vector_ND = encode(model, texts, bf16=bf16)
        value = batch_objective(vector_ND, texts, part, options, model.spec)
        share = len(part) / len(batch)
        (value.loss * share).backward()
        loss += share * float(value.loss.detach())
        zeros += share * value.zero_share
        vectors.append(vector_ND.detach())
        texts_of_all += texts
    loss, zeros = among.add(loss, zeros)
    return BatchValue(loss, zeros, _spread(torch.cat(vectors), texts_of_all, batch, among))


def _cached(
    model: EncoderModel,
    encode: TextEncoder,
    batch: Sequence[Triplet],
    options: TrainingOptions,
    size: int,
    among: Processes,
    *,
    bf16: bool,
) -> BatchValue:
    """Source: Gao, Zhang, Han, Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021,
    section 3. Dropout is off, so that the second pass gives the first one's vectors without its random state.
    """
    texts = distinct_texts(batch)
    hands = among.deal([len(text) for _, text in texts])
    groups = encode.groups([texts[n] for n in hands[among.rank]], at_most=_TEXTS_OF_TRIPLET * size)
    with torch.no_grad():
        own_nD = in_order(groups, [encode_group(model, group, bf16=bf16) for group in groups])
    vector_ND = among.gather(own_nD.requires_grad_(), hands)
    value = batch_objective(vector_ND, texts, batch, options, model.spec)
    value.loss.backward()
    gradient_nD = own_nD.grad
    assert gradient_nD is not None  # noqa: S101 - every loss is a function of the vectors
    for group in groups:
        # Only texts that the loss depends on: a negative that no anchor chose has a gradient of zero. But one group in
        # any case: Adam goes on by its moments where a gradient is zero, and stands still where there is none. And all
        # where processes go through the model in step.
        if among.shards or group is groups[0] or gradient_nD[group.places].any():
            encode_group(model, group, bf16=bf16).backward(gradient_nD[group.places])
    return BatchValue(float(value.loss.detach()), value.zero_share, anchor_spread(vector_ND, texts, batch))


def _spread(vector_nD: torch.Tensor, texts: list[Text], batch: Sequence[Triplet], among: Processes) -> Spread:
    """Return the spread of all anchors, from the vectors that each process has of its own triplets' texts."""
    if among.size > 1:
        place = {text: n for n, text in enumerate(texts)}
        # equally many from each; where the number does not come out, the last processes send their first once more
        hands = [list(range(rank, len(batch), among.size)) for rank in range(among.size)]
        longest = len(hands[0])
        own = [place[anchor_text(batch[n])] for n in hands[among.rank]]
        hands = [hand + hand[:1] * (longest - len(hand)) for hand in hands]
        vector_nD = among.gather(vector_nD[own + own[:1] * (longest - len(own))], hands)
        texts = [anchor_text(row) for row in batch]
    return anchor_spread(vector_nD, texts, batch)
