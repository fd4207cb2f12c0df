"""From the vectors of a step's texts to its loss. Shapes: N distinct texts, B triplets, M = 2B bodies, D = 2560."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pgembed.encoders.spec import EncoderSpec
from pgembed.errors import TrainingError
from pgembed.training.data import Triplet
from pgembed.training.encode import Text, anchor_text
from pgembed.training.loss import (
    LossValue,
    allowed_negatives,
    hardest_negatives,
    in_batch_loss,
    semi_hard_negatives,
    triplet_loss,
)
from pgembed.training.options import TrainingOptions


@dataclass(frozen=True)
class Spread:
    """How far apart the step's distinct anchors lie. Both are None of a single one."""

    mean_cosine: float | None
    """Mean cosine of two different anchors; 1: all are the same vector."""
    deviation: float | None
    """Root of the variances' sum over the dimensions: √(1 − ‖mean‖²) for unit vectors; 0: all are the same vector."""


def batch_objective(
    vector_ND: Tensor, texts: Sequence[Text], batch: Sequence[Triplet], options: TrainingOptions, spec: EncoderSpec
) -> LossValue:
    """Return the loss of one batch, from the vector of each of its distinct texts.

    With Matryoshka widths it is the mean over them and the whole width, each of them normalised after the cut, and with
    negatives of its own; `zero_share` is the whole width's.

    Source: Kusupati et al., "Matryoshka Representation Learning", NeurIPS 2022, eq. 1, with equal weights.
    """
    place = {text: n for n, text in enumerate(texts)}
    anchors = [place[anchor_text(row)] for row in batch]
    positives = [place["passage", row.positive] for row in batch]
    negatives = [place["passage", row.negative] for row in batch]
    allowed_BM = None if _mined_alone(options) else allowed_negatives(batch).to(vector_ND.device)
    values = [
        _loss(cut_ND[anchors], cut_ND[positives], cut_ND[negatives], allowed_BM, options)
        for cut_ND in _cuts(vector_ND, options, spec)
    ]
    if len(values) == 1:
        return values[0]
    return LossValue(torch.stack([value.loss for value in values]).mean(), values[0].zero_share)


def rows_are_independent(options: TrainingOptions) -> bool:
    """Tell whether a triplet's loss depends on no other triplet, so that a batch's is a mean over parts of it."""
    return _mined_alone(options)


def anchor_spread(vector_ND: Tensor, texts: Sequence[Text], batch: Sequence[Triplet]) -> Spread:
    """Return how far apart the batch's distinct anchors lie."""
    place = {text: n for n, text in enumerate(texts)}
    anchor_AD = vector_ND.detach()[sorted({place[anchor_text(row)] for row in batch})].float()
    count = len(anchor_AD)
    if count < 2:
        return Spread(None, None)
    # of unit vectors: ‖Σ a‖² = A + Σ over pairs of cosines, without the (A, A) matrix
    squared = float(anchor_AD.sum(dim=0).square().sum())
    own = float(anchor_AD.square().sum())
    return Spread((squared - own) / (count * (count - 1)), max(0.0, own / count - squared / count**2) ** 0.5)


def check_widths(options: TrainingOptions, spec: EncoderSpec) -> None:
    """Check that each Matryoshka width cuts something off.

    Raises:
        TrainingError: one is no less than the widest tower.
    """
    widest = max(tower.dimensions for tower in spec.towers)
    if too_wide := [width for width in options.matryoshka if width > widest]:
        raise TrainingError(
            f"matryoshka: {too_wide[0]} is wider than the {widest} dimensions of {spec.name}.",
            remedy="Give widths up to that; the whole width is always among them.",
        )


def _mined_alone(options: TrainingOptions) -> bool:
    return options.loss == "triplet" and options.negatives == "mined"


def _loss(
    anchor_BD: Tensor, positive_BD: Tensor, negative_BD: Tensor, allowed_BM: Tensor | None, options: TrainingOptions
) -> LossValue:
    if allowed_BM is not None:
        body_MD = torch.cat([positive_BD, negative_BD])
        if options.loss == "in-batch":
            return in_batch_loss(anchor_BD, positive_BD, body_MD, allowed_BM, scale=options.scale)
        if options.negatives == "semi-hard":
            negative_BD = semi_hard_negatives(anchor_BD, positive_BD, body_MD, allowed_BM)
        else:
            negative_BD = hardest_negatives(anchor_BD, body_MD, allowed_BM)
    return triplet_loss(anchor_BD, positive_BD, negative_BD, margin=options.margin, kind=options.distance)


def _cuts(vector_ND: Tensor, options: TrainingOptions, spec: EncoderSpec) -> Iterator[Tensor]:
    """Yield the vectors whole, and then cut to each width: each tower to its first dimensions, and joined as ever."""
    yield vector_ND
    widest = max(tower.dimensions for tower in spec.towers)
    for width in sorted(set(options.matryoshka) - {widest}, reverse=True):
        parts, start = [], 0
        for tower in spec.towers:
            cut = vector_ND[:, start : start + min(width, tower.dimensions)]
            parts.append(normalize(cut, dim=1, eps=1e-12) * tower.weight)
            start += tower.slot
        yield normalize(torch.cat(parts, dim=1), dim=1, eps=1e-12)
