"""Which texts go through the model together: of like length, so that little is padding, under a token budget."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


def length_batches(lengths: Sequence[int], *, token_budget: int) -> Iterator[NDArray[np.intp]]:
    """Yield the positions of each batch, longest first (so that a model too large fails at the first batch).

    A batch's padded size, texts times the longest of them, stays within `token_budget`; a text longer than the
    budget is a batch of its own. Every position is yielded once.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        end = min(start + max(token_budget // longest, 1), len(order))
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
