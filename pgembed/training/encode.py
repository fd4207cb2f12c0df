"""The texts of a step through the model, each distinct one once. Shapes: N texts, D = 2560."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pgembed.encoders.batching import pad
from pgembed.encoders.spec import EncoderSpec, Role
from pgembed.encoders.tokenizer import Tokenizer
from pgembed.encoders.weights import locate
from pgembed.training.data import Triplet
from pgembed.training.model import EncoderModel

Text = tuple[Role, str]

# Groups of like length that a step's texts are encoded in: four have about a tenth of one group's padding.
_GROUPS = 4


class TextEncoder:
    """Tokenizers of all towers, cut at the training's limit."""

    def __init__(self, spec: EncoderSpec, *, max_tokens: int) -> None:
        self._towers = [
            (tower, Tokenizer(locate(tower) / "tokenizer.json", max_tokens=min(tower.max_tokens, max_tokens)))
            for tower in spec.towers
        ]

    def __call__(self, model: EncoderModel, texts: Sequence[Text], *, bf16: bool = False) -> Tensor:
        """Return (N, D) float32 with gradients, in the order given."""
        ids = [
            tokenizer.encode([tower.prompt(role) + text for role, text in texts]) for tower, tokenizer in self._towers
        ]
        order = sorted(range(len(texts)), key=lambda n: max(len(tower[n]) for tower in ids))
        size = -(-len(order) // _GROUPS)
        parts = []
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            for start in range(0, len(order), size):
                group = order[start : start + size]
                arrays = [torch.from_numpy(array) for tower in ids for array in pad([tower[n] for n in group])]
                parts.append(model(*arrays))
        place = torch.empty(len(order), dtype=torch.long)
        place[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(parts)[place]


def anchor_text(row: Triplet) -> Text:
    """Return the anchor in the role it will have: a docstring stands for a query, code for a passage."""
    return ("query" if row.kind == "docstring" else "passage", row.anchor)


def distinct_texts(batch: Sequence[Triplet]) -> list[Text]:
    """Return each text of the batch once, in a fixed order: sums in floating point depend on it."""
    bodies: set[Text] = {("passage", text) for row in batch for text in (row.positive, row.negative)}
    return sorted(bodies | {anchor_text(row) for row in batch})
