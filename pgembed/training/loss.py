"""Losses on L2-normalised embeddings. Shapes: B triplets, M = 2B bodies (positives, then negatives), D dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, relu

from pgembed.training.data import Triplet


@dataclass(frozen=True)
class LossValue:
    """What a batch gave."""

    loss: Tensor
    """Scalar, differentiable."""
    zero_share: float
    """Share of the anchors that teach nothing more: right by the margin (triplet), or sure to 0.99 (in-batch)."""


def distance(a_BD: Tensor, b_BD: Tensor, kind: str) -> Tensor:
    """Return (B,), row by row: 1 − cos for cosine, ‖a − b‖ for euclidean, of unit vectors."""
    cosine_B = (a_BD * b_BD).sum(dim=1)
    if kind == "cosine":
        return 1 - cosine_B
    # ‖a − b‖² = 2 − 2 cos; the root's slope at 0 is infinite, so it starts a little above
    return (2 - 2 * cosine_B).clamp(min=1e-12).sqrt()


def triplet_loss(
    anchor_BD: Tensor, positive_BD: Tensor, negative_BD: Tensor, *, margin: float, kind: str = "cosine"
) -> LossValue:
    """Mean over the batch of max(0, margin + d(anchor, positive) − d(anchor, negative)).

    Source: Schroff, Kalenichenko, Philbin, "FaceNet: A Unified Embedding for Face Recognition and Clustering", CVPR
    2015, eq. 2 (there with squared distances, and summed).
    """
    losses_B = relu(margin + distance(anchor_BD, positive_BD, kind) - distance(anchor_BD, negative_BD, kind))
    return LossValue(losses_B.mean(), float((losses_B == 0).float().mean()))


def hardest_negatives(anchor_BD: Tensor, body_MD: Tensor, allowed_BM: Tensor) -> Tensor:
    """Return (B, D): for each anchor the nearest of the bodies that are allowed as its negative.

    Source: Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017, eq. 5
    (batch hard; the positive is the one that was mined).
    """
    cosine_BM = (anchor_BD @ body_MD.T).detach().masked_fill(~allowed_BM, -torch.inf)
    return body_MD[cosine_BM.argmax(dim=1)]


def semi_hard_negatives(anchor_BD: Tensor, positive_BD: Tensor, body_MD: Tensor, allowed_BM: Tensor) -> Tensor:
    """Return (B, D): for each anchor the nearest of the allowed bodies that are further away than its positive.

    So the loss is at most the margin, and one wrong label among the bodies does not pull all vectors together, as the
    hardest can early in training. Where every body is nearer than the positive, the furthest of them is taken, as in
    TensorFlow Addons. On unit vectors the order by cosine is that of both distances.

    Source: Schroff, Kalenichenko, Philbin, "FaceNet", CVPR 2015, section 3.2, eq. 4.
    """
    cosine_BM = (anchor_BD @ body_MD.T).detach()
    right_B1 = (anchor_BD * positive_BD).sum(dim=1, keepdim=True).detach()
    further_BM = allowed_BM & (cosine_BM < right_B1)
    nearest_B = cosine_BM.masked_fill(~further_BM, -torch.inf).argmax(dim=1)
    furthest_B = cosine_BM.masked_fill(~allowed_BM, torch.inf).argmin(dim=1)
    return body_MD[torch.where(further_BM.any(dim=1), nearest_B, furthest_B)]


def in_batch_loss(
    anchor_BD: Tensor, positive_BD: Tensor, body_MD: Tensor, allowed_BM: Tensor, *, scale: float
) -> LossValue:
    """Cross-entropy of telling each anchor's positive from all the bodies that are allowed as its negatives.

    `scale` is the inverse temperature of the cosines. Known as multiple negatives ranking.

    Source: Henderson et al., "Efficient Natural Language Response Suggestion for Smart Reply", 2017, section 4.4;
    with mined negatives beside the others' positives: Karpukhin et al., "Dense Passage Retrieval", 2020, section 3.2.
    """
    right_B1 = (anchor_BD * positive_BD).sum(dim=1, keepdim=True)
    wrong_BM = (anchor_BD @ body_MD.T).masked_fill(~allowed_BM, -torch.inf)
    scores = scale * torch.cat([right_B1, wrong_BM], dim=1)
    target_B = torch.zeros(len(anchor_BD), dtype=torch.long, device=anchor_BD.device)
    sure_B = scores.detach().softmax(dim=1)[:, 0] > 0.99
    return LossValue(cross_entropy(scores, target_B), float(sure_B.float().mean()))


def allowed_negatives(batch: Sequence[Triplet]) -> Tensor:
    """Return the (B, M) mask of bodies that are wrong answers to each anchor.

    Its own mined negative is. Another row's positive or negative is, unless it is this anchor's positive under
    another row, or answers the same anchor.
    """
    mask = torch.zeros((len(batch), 2 * len(batch)), dtype=torch.bool)
    for i, own in enumerate(batch):
        answers = {row.positive for row in batch if row.anchor == own.anchor}
        for j, other in enumerate(batch):
            mask[i, j] = other.positive not in answers
            mask[i, len(batch) + j] = i == j or other.negative not in answers
    return mask
