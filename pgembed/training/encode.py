"""The texts of a step through the model, each distinct one once. Shapes: N texts, D = 2560."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pgembed.encoders.batching import pad
from pgembed.encoders.end_of_text import tower_tokenizer
from pgembed.encoders.spec import ROLES, EncoderSpec, Role
from pgembed.encoders.weights import locate
from pgembed.training.data import Triplet
from pgembed.training.distributed import Processes
from pgembed.training.model import EncoderModel

Text = tuple[Role, str]

# What one more group costs, in tokens of padding that it must save. MiniLM on CPU: 100 and 200 took the same time, 400
# took 4% more, and four groups of like number, whatever their lengths, 8%.
_GROUP_COST = 100


@dataclass(frozen=True)
class Group:
    """Texts of like length, that go through the model together."""

    places: list[int]
    """Where they stand among all."""
    inputs: list[Tensor]
    """input_ids and attention_mask of each tower in turn, (n, T) int64; with task adapters the roles, (n,) int64."""


class TextEncoder:
    """Tokenizers of all towers, cut at the training's limit."""

    def __init__(self, spec: EncoderSpec, *, max_tokens: int) -> None:
        self._takes_role = spec.takes_role
        self._towers = [
            (tower, tower_tokenizer(tower, locate(tower), max_tokens=min(tower.max_tokens, max_tokens)))
            for tower in spec.towers
        ]

    def groups(self, texts: Sequence[Text], *, at_most: int | None = None) -> list[Group]:
        """Cut the texts to tokens, and sort them by length into groups of at most `at_most` with little padding."""
        ids = [
            tokenizer.encode([tower.prompt(role) + text for role, text in texts]) for tower, tokenizer in self._towers
        ]
        longest = [max(map(len, towers)) for towers in zip(*ids, strict=True)]
        order = sorted(range(len(texts)), key=lambda n: longest[n])
        found = []
        for start, end in least_padding([longest[n] for n in order], at_most=at_most or len(order)):
            places = order[start:end]
            arrays = [torch.from_numpy(array) for tower in ids for array in pad([tower[n] for n in places])]
            if self._takes_role:
                arrays.append(torch.tensor([ROLES.index(texts[n][0]) for n in places]))
            found.append(Group(places, arrays))
        return found

    def __call__(
        self, model: EncoderModel, texts: Sequence[Text], *, bf16: bool = False, at_most: int | None = None
    ) -> Tensor:
        """Return (N, D) float32 with gradients, in the order given."""
        groups = self.groups(texts, at_most=at_most)
        # one context around all: each weight is cast once
        with autocast(model, bf16=bf16):
            return in_order(groups, [encode_group(model, group, bf16=bf16) for group in groups])


def least_padding(lengths: Sequence[int], *, at_most: int) -> list[tuple[int, int]]:
    """Cut texts of ascending lengths into runs [start, end) of at most `at_most`, padded to the longest in each.

    The runs are those of the least padded tokens and _GROUP_COST for each run, among all ways to cut: dynamic
    programming over the last run's start, O(N · at_most).
    """
    cost_N1 = np.zeros(len(lengths) + 1)
    starts = []
    for end, longest in enumerate(lengths, 1):
        first = max(0, end - at_most)
        padded = cost_N1[first:end] + np.arange(end - first, 0, -1) * longest
        starts.append(first + int(padded.argmin()))
        cost_N1[end] = padded.min() + _GROUP_COST
    runs: list[tuple[int, int]] = []
    end = len(lengths)
    while end:
        runs.append((starts[end - 1], end))
        end = starts[end - 1]
    return runs[::-1]


def encode_group(model: EncoderModel, group: Group, *, bf16: bool = False) -> Tensor:
    """Return (n, D): the vectors of one group."""
    # a context of its own, if there is none: what is cast without a graph must not be used again where one is wanted
    with autocast(model, bf16=bf16):
        vector_nD: Tensor = model(*(array.to(device_of(model)) for array in group.inputs))
    return vector_nD


def encode_together(
    model: EncoderModel,
    encode: TextEncoder,
    texts: Sequence[Text],
    among: Processes,
    *,
    bf16: bool = False,
    at_most: int | None = None,
) -> Tensor:
    """Return (N, D) on every process, in the order given; each encodes its share, with gradients."""
    hands = among.deal([len(text) for _, text in texts])
    own = hands[among.rank]
    return among.gather(encode(model, [texts[n] for n in own], bf16=bf16, at_most=at_most), hands)


def device_of(model: nn.Module) -> torch.device:
    """Return where the model's weights are."""
    device: torch.device = next(model.parameters()).device
    return device


def autocast(model: nn.Module, *, bf16: bool) -> torch.autocast:
    """Return the context in which the model's products are taken in bf16, if they shall be, where its weights are."""
    return torch.autocast(device_of(model).type, dtype=torch.bfloat16, enabled=bf16)


def in_order(groups: Sequence[Group], parts: Sequence[Tensor]) -> Tensor:
    """Return (N, D): the groups' vectors, each where its text stands."""
    order = [place for group in groups for place in group.places]
    place = torch.empty(len(order), dtype=torch.long)
    place[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(list(parts))[place]


def anchor_text(row: Triplet) -> Text:
    """Return the anchor in the role it will have: a docstring stands for a query, code for a passage."""
    return ("query" if row.kind == "docstring" else "passage", row.anchor)


def distinct_texts(batch: Sequence[Triplet]) -> list[Text]:
    """Return each text of the batch once, in a fixed order: sums in floating point depend on it."""
    bodies: set[Text] = {("passage", text) for row in batch for text in (row.positive, row.negative)}
    return sorted(bodies | {anchor_text(row) for row in batch})
