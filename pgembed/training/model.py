"""The encoder as a torch module: transformer, pooling, normalisation, and the join to 2,560 dimensions.

Shapes: B texts, T tokens, H hidden, D = 2560.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from pgembed.encoders.spec import EncoderSpec, TowerSpec
from pgembed.encoders.weights import locate
from pgembed.training.adapters import AdaptedTransformer
from pgembed.training.towers import Attention, load_transformer


class Tower(nn.Module):  # type: ignore[misc]  # torch is not analysed
    """One transformer with its pooling. Output (B, slot), L2-normalised, zeros behind the tower's own dimensions."""

    def __init__(self, spec: TowerSpec, transformer: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.transformer = transformer

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor, role_B: Tensor | None = None) -> Tensor:
        rows = {"adapter_rows": role_B} if isinstance(self.transformer, AdaptedTransformer) else {}
        hidden_BTH = self.transformer(
            input_ids=input_ids_BT, attention_mask=attention_mask_BT, **rows
        ).last_hidden_state
        # under autocast what follows the transformer stays in full precision: it costs nothing and decides distances
        full_BTH = hidden_BTH.float() if hidden_BTH.dtype in (torch.bfloat16, torch.float16) else hidden_BTH
        pooled_BH = pool(full_BTH, attention_mask_BT, self.spec.pooling)
        # the first dimensions alone, where it is said so (Matryoshka): cut, then normalised
        unit_BD = normalize(pooled_BH[:, : self.spec.dimensions], dim=1, eps=1e-12)
        return pad(unit_BD, (0, self.spec.slot - self.spec.dimensions))


class EncoderModel(nn.Module):  # type: ignore[misc]
    """All towers: each weighted, joined, and normalised again. Output (B, 2560)."""

    def __init__(self, spec: EncoderSpec, towers: list[Tower]) -> None:
        super().__init__()
        self.spec = spec
        self.towers = nn.ModuleList(towers)

    def forward(self, *inputs_BT: Tensor) -> Tensor:
        """Embed; `inputs_BT` are input_ids and attention_mask of each tower in turn, (B, T) int64.

        Where the encoder has task adapters (`spec.takes_role`), each text's role follows, (B,) int64: its place in
        `encoders.spec.ROLES`.
        """
        role_B = inputs_BT[-1] if self.spec.takes_role else None
        if len(self.towers) == 1:
            vector: Tensor = self.towers[0](inputs_BT[0], inputs_BT[1], role_B)
            return vector
        parts = [
            tower(inputs_BT[2 * n], inputs_BT[2 * n + 1], role_B) * self.spec.towers[n].weight
            for n, tower in enumerate(self.towers)
        ]
        return normalize(torch.cat(parts, dim=1), dim=1, eps=1e-12)


def pool(hidden_BTH: Tensor, mask_BT: Tensor, how: str) -> Tensor:
    """Return (B, H): the mean over real tokens, the last real token, or the first."""
    if how == "mean":
        weights_BT1 = mask_BT.unsqueeze(-1).to(hidden_BTH.dtype)
        return (hidden_BTH * weights_BT1).sum(dim=1) / weights_BT1.sum(dim=1).clamp(min=1e-9)
    if how == "last":
        # padding is on the right: the last real token stands at the number of real ones, less one
        last_B = mask_BT.sum(dim=1) - 1
        return hidden_BTH[torch.arange(hidden_BTH.shape[0], device=hidden_BTH.device), last_B]
    return hidden_BTH[:, 0]


def load_model(spec: EncoderSpec, folders: list[Path] | None = None, *, attention: Attention = "eager") -> EncoderModel:
    """Build the module in float32 with the published weights, in evaluation mode.

    Raises:
        EncoderError: the files do not hold the model that the spec describes.
    """
    folders = folders or [locate(tower) for tower in spec.towers]
    towers = [
        Tower(tower, load_transformer(tower, folder, attention))
        for tower, folder in zip(spec.towers, folders, strict=True)
    ]
    return EncoderModel(spec, towers).eval()  # type: ignore[no-any-return]
