"""The same bits from the same run: torch's operations held to implementations that add in a fixed order."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def deterministic() -> Iterator[None]:
    """Hold torch to deterministic operations while the block runs.

    Without it the gradient of indexing is added up by several threads in the order of their arrival: of three equal
    runs of 40 steps on two cores no two ended with the same loss. Another number of threads still gives other bits.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
