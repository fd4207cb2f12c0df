"""Task adapters (LoRA) that each text of a batch chooses by its role, in torch and in an exported graph alike.

Every adapted layer holds the adapters of both roles side by side, and every row of a batch says which is its own: so
queries and passages run in one batch, and one graph holds everything. W·x + B·(A·x), B carrying the scale α/r.

Shapes: R roles (2, in the order of `encoders.spec.ROLES`), B texts, T tokens, I in, O out, r rank, V vocabulary.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, equation 3.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

A, B = "adapter_a", "adapter_b"


@dataclass
class Rows:
    """Which adapter each text of the running batch goes through: (B,) int64."""

    rows_B: Tensor


@dataclass(frozen=True)
class Adapter:
    """One layer's adapters. For a linear layer (R, r, I) and (R, O, r), for an embedding (R, V, r) and (R, r, O)."""

    a: Tensor
    b: Tensor


class AdaptedLinear(nn.Linear):  # type: ignore[misc]  # torch is not analysed
    """A linear layer with the adapters of both roles."""

    def __init__(self, layer: nn.Linear, adapter: Adapter, rows: Rows) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.adapter_a, self.adapter_b = nn.Parameter(adapter.a), nn.Parameter(adapter.b)
        self.rows = rows

    def forward(self, x_BTI: Tensor) -> Tensor:
        a_BrI, b_BOr = self.adapter_a[self.rows.rows_B], self.adapter_b[self.rows.rows_B]
        low_BTr = x_BTI @ a_BrI.transpose(1, 2)
        return super().forward(x_BTI) + low_BTr @ b_BOr.transpose(1, 2)


class AdaptedEmbedding(nn.Embedding):  # type: ignore[misc]
    """An embedding with the adapters of both roles."""

    def __init__(self, layer: nn.Embedding, adapter: Adapter, rows: Rows) -> None:
        super().__init__(layer.num_embeddings, layer.embedding_dim, layer.padding_idx, device="meta")
        self.weight = layer.weight
        self.adapter_a, self.adapter_b = nn.Parameter(adapter.a), nn.Parameter(adapter.b)
        self.rows = rows

    def forward(self, ids_BT: Tensor) -> Tensor:
        # one table of all roles' rows under each other: a plain look-up, for the graph too
        table = self.adapter_a.flatten(0, 1)
        low_BTr = embedding(ids_BT + self.rows.rows_B.unsqueeze(1) * self.weight.shape[0], table)
        return super().forward(ids_BT) + low_BTr @ self.adapter_b[self.rows.rows_B]


class AdaptedTransformer(nn.Module):  # type: ignore[misc]
    """A transformer whose layers have adapters; called like it, and with the rows besides."""

    def __init__(self, transformer: nn.Module, adapters: dict[str, Adapter]) -> None:
        """Put `adapters` beside the layers that they are named after."""
        super().__init__()
        self.rows = Rows(torch.zeros(1, dtype=torch.long))
        for name, adapter in adapters.items():
            parent, _, own = name.rpartition(".")
            layer = transformer.get_submodule(name)
            kind = AdaptedEmbedding if isinstance(layer, nn.Embedding) else AdaptedLinear
            setattr(transformer.get_submodule(parent), own, kind(layer, adapter, self.rows))
        self.inner = transformer

    @property
    def config(self) -> Any:
        """The transformer's configuration."""
        return self.inner.config

    def forward(self, *, input_ids: Tensor, attention_mask: Tensor, adapter_rows: Tensor) -> Any:
        # Shared by all layers. What computes a layer again on the way back must put its batch's rows here first: see
        # training.recompute.
        self.rows.rows_B = adapter_rows
        return self.inner(input_ids=input_ids, attention_mask=attention_mask)
