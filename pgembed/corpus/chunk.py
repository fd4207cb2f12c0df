"""One piece of code at one place, and what a file gave."""

import hashlib
from dataclasses import dataclass

MAX_CHUNK_CHARACTERS = 20_000
"""A longer definition is cut into windows: no encoder reads that far, and one chunk must not fill a slice."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of code at one place. Lines count from 1, both ends included."""

    language: str
    kind: str
    """function, method, class (a class without methods, or the head of one with them), window."""
    symbol: str
    """The name as the code says it, unqualified; empty where there is none."""
    qualified: str
    content: str
    """The text of its lines, moved left by the indentation of the first."""
    docstring: str | None
    """What the documentation says, without quotes, comment marks and indentation."""
    body: str
    """The content without the documentation."""
    start_line: int
    end_line: int

    @property
    def sha256(self) -> bytes:
        """The address of its content: the same code anywhere has the same."""
        return hashlib.sha256(f"{self.language}\0{self.kind}\0{self.content}".encode()).digest()


@dataclass(frozen=True, slots=True)
class Chunked:
    """What a file gave."""

    chunks: list[Chunk]
    error_lines: tuple[int, ...] = ()
    """The first lines that the grammar could not read."""
    left_out: tuple[str, ...] = ()
    """The definitions that were left out for such an error inside them."""
