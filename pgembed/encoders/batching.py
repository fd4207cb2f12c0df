"""Which texts go through the model together: of like length, so that little is padding, under a token budget."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgembed.encoders.windows import Window

MOST_PADDING = 0.1
"""Share of a batch that may be padding, which costs as much as tokens do."""


@dataclass(frozen=True)
class Input:
    """One row of a batch: a text, or a part of one."""

    text: int
    """Position of the text."""
    windows: list[Window]
    """One for each tower."""
    is_last: bool


@dataclass(frozen=True)
class Embedded:
    """What became of some texts."""

    vectors: NDArray[np.float32]
    """(N, D) in the order given; NaN, infinite or zero where the model gave that, NaN where it gave nothing."""
    errors: dict[int, str]
    """Position of each text that the tokenizer or the engine failed on, and what it said."""
    long: list[int]
    """Positions of the texts that are longer than the encoder reads."""


def side_by_side(text: int, windows: Sequence[Sequence[Window]]) -> Iterator[Input]:
    """Yield the inputs of a text, whose windows are given for each tower.

    A tower with fewer windows than another repeats its last one, without weight.
    """
    count = max(len(tower) for tower in windows)
    for n in range(count):
        row = [tower[n] if n < len(tower) else Window(tower[-1].ids, 0) for tower in windows]
        yield Input(text, row, is_last=n == count - 1)


def length_batches(
    lengths: Sequence[int], *, token_budget: int, most_padding: float = MOST_PADDING
) -> Iterator[NDArray[np.intp]]:
    """Yield the positions of each batch, longest first (so that a model too large fails at the first batch).

    A batch's padded size, texts times the longest of them, stays within `token_budget`, and the share of it that is
    padding within `most_padding`; a text longer than the budget is a batch of its own. Every position is yielded once.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    start = 0
    while start < len(order):
        longest = real = int(lengths[order[start]])
        end = start + 1
        while end < len(order):
            count = end + 1 - start
            real += int(lengths[order[end]])
            if count * max(longest, 1) > token_budget or count * longest - real > most_padding * count * longest:
                break
            end += 1
        yield order[start:end]
        start = end


def pad(ids: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return `(input_ids, attention_mask)`, each (B, T) int64, padded with zeros on the right to the longest."""
    width = max((len(row) for row in ids), default=0)
    input_ids = np.zeros((len(ids), width), dtype=np.int64)
    attention_mask = np.zeros((len(ids), width), dtype=np.int64)
    for position, row in enumerate(ids):
        input_ids[position, : len(row)] = row
        attention_mask[position, : len(row)] = 1
    return input_ids, attention_mask
