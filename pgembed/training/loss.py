"""Losses on L2-normalised embeddings. Shapes: B triplets, D dimensions."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, relu


@dataclass(frozen=True)
class LossValue:
    """What a batch gave."""

    loss: Tensor
    """Scalar, differentiable."""
    zero_share: float
    """Share of the anchors whose loss is zero: already right by the margin (triplet) or by 0.99 (in-batch)."""


def distances(a_ND: Tensor, b_MD: Tensor, distance: str) -> Tensor:
    """Return (N, M): 1 − cos for cosine, ‖a − b‖ for Euclidean, of unit vectors."""
    cosine_NM = a_ND @ b_MD.T
    if distance == "cosine":
        return 1 - cosine_NM
    # ‖a − b‖² = 2 − 2 cos; the root's slope at 0 is infinite, so it starts a little above
    return (2 - 2 * cosine_NM).clamp(min=1e-12).sqrt()


def triplet_loss(
    anchor_BD: Tensor,
    positive_BD: Tensor,
    negative_BD: Tensor,
    *,
    margin: float,
    distance: str = "cosine",
    candidates: Tensor | None = None,
) -> LossValue:
    """Mean over the batch of max(0, margin + d(anchor, positive) − d(anchor, negative)).

    With `candidates`, a (B, B) mask, the negative of a row is the nearest of its own negative and of those positives
    of other rows that the mask allows (batch-hard selection among the mined and the free negatives).

    Source: Schroff, Kalenichenko, Philbin, "FaceNet", CVPR 2015, eq. 2–3; batch-hard: Hermans, Beyer, Leibe, "In
    Defense of the Triplet Loss for Person Re-Identification", 2017, eq. 5.
    """
    to_positive_B = distances(anchor_BD, positive_BD, distance).diagonal()
    to_negative_B = distances(anchor_BD, negative_BD, distance).diagonal()
    if candidates is not None:
        to_others_BB = distances(anchor_BD, positive_BD, distance).masked_fill(~candidates, torch.inf)
        to_negative_B = torch.minimum(to_negative_B, to_others_BB.min(dim=1).values)
    losses_B = relu(margin + to_positive_B - to_negative_B)
    return LossValue(losses_B.mean(), float((losses_B == 0).float().mean()))


def in_batch_loss(
    anchor_BD: Tensor, positive_BD: Tensor, negative_BD: Tensor, *, scale: float, candidates: Tensor
) -> LossValue:
    """Cross-entropy of finding a row's positive among all positives and all mined negatives of the batch.

    `candidates` is the (B, B) mask of positives of other rows that are not also right for this one.

    Source: Henderson et al., "Efficient Natural Language Response Suggestion for Smart Reply", 2017, sec. 4.4.
    """
    own_BB = torch.eye(len(anchor_BD), dtype=torch.bool, device=anchor_BD.device)
    scores_BB = (scale * anchor_BD @ positive_BD.T).masked_fill(~(candidates | own_BB), -torch.inf)
    hard_BB = (scale * anchor_BD @ negative_BD.T).masked_fill(~(candidates | own_BB), -torch.inf)
    scores_B2B = torch.cat([scores_BB, hard_BB], dim=1)
    target_B = torch.arange(len(anchor_BD), device=anchor_BD.device)
    right_B = scores_B2B.detach().softmax(dim=1).diagonal()
    return LossValue(cross_entropy(scores_B2B, target_B), float((right_B > 0.99).float().mean()))


def other_rows(anchors: list[str], positives: list[str]) -> Tensor:
    """Return the (B, B) mask of rows whose positive is a negative for this anchor: another text, to another question."""
    size = len(anchors)
    mask = torch.ones((size, size), dtype=torch.bool)
    for i in range(size):
        for j in range(size):
            if anchors[i] == anchors[j] or positives[i] == positives[j]:
                mask[i, j] = False
    return mask
