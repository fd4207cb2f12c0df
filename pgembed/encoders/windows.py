"""Texts that are longer than an encoder reads, embedded as overlapping windows of tokens and pooled to one vector.

Each window is a text of its own to the model: the prompt and the special tokens stand around it. The pooled vector is
the mean of the windows' normalised vectors, weighted by their tokens, and normalised again: a tower at a time, since
two towers with two tokenizers cut at different places.

Measured with MiniLM (256 tokens; nDCG@10, 95% interval of the difference; benchmarks/long_chunks.py): windows find more
where the function's name is masked (docstring to body, 40% of the bodies long: .594 to .612, [+.004, +.031]), not
where it is there (.694 to .683, [-.025, +.003]), and nothing on CoSQA, where 1% is long (.603 to .602); they cost two
to three times the embedding. So texts are cut unless a user chooses otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pgembed.encoders.spec import EncoderSpec
from pgembed.errors import EncoderError

Long = Literal["truncate", "windows"]
"""What becomes of a text that is longer than the encoder reads: its beginning alone, or all of it."""

LONG: tuple[Long, ...] = get_args(Long)

# Share of a window that the next one repeats, so that a statement at a cut stands whole in one of the two.
_OVERLAP = 1 / 8


@dataclass(frozen=True)
class Window:
    """One input of a tower."""

    ids: list[int]
    tokens: int
    """How many of them are the text's own: neither special nor the prompt's."""


def cut_windows(
    content: Sequence[int], *, prompt: Sequence[int], before: Sequence[int], after: Sequence[int], limit: int
) -> list[Window]:
    """Return the windows of a text's tokens, at most `limit` long with `before`, `prompt` and `after` around each.

    Raises:
        EncoderError: what stands around a window leaves no room for one.
    """
    size = limit - len(before) - len(prompt) - len(after)
    step = size - int(size * _OVERLAP)
    if size < 1:
        raise EncoderError(f"The prompt of {len(prompt)} tokens leaves no room in the {limit} that the encoder reads.")
    starts = range(0, max(len(content) - (size - step), 1), step)
    pieces = [content[start : start + size] for start in starts]
    return [Window([*before, *prompt, *piece, *after], len(piece)) for piece in pieces]


class WindowPool:
    """The pooled vectors of some texts, built up as their windows are embedded, in any order.

    Sums are kept in float64, so that the order costs nothing that float32 could show.
    """

    def __init__(self, spec: EncoderSpec, texts: Sequence[int]) -> None:
        """Make room for the texts at these positions."""
        self._row = {text: row for row, text in enumerate(texts)}
        self._slots = [tower.slot for tower in spec.towers]
        weights = np.array([tower.weight for tower in spec.towers])
        self._norms = weights / np.linalg.norm(weights)
        """Length that each tower's part of a joined unit vector has."""
        self._sums = np.zeros((len(texts), spec.dimensions))

    def add(self, text: int, vector: NDArray[np.float32], tokens: Sequence[int]) -> None:
        """Add a joined vector (D,) to a text's; `tokens` are the weights, one for each tower."""
        self._sums[self._row[text]] += np.repeat(np.asarray(tokens, dtype=np.float64), self._slots) * vector

    def pooled(self) -> NDArray[np.float32]:
        """Return (texts, D) float32, L2-normalised; NaN where a tower's windows cancel out or were not finite."""
        parts = np.split(self._sums, np.cumsum(self._slots)[:-1], axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            joined = [
                part * (norm / np.linalg.norm(part, axis=1, keepdims=True))
                for part, norm in zip(parts, self._norms, strict=True)
            ]
        return np.concatenate(joined, axis=1).astype(np.float32)
