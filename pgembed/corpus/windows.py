"""Text to windows of lines, for whatever has no definitions: each overlaps the one before."""

from collections.abc import Iterator

from pgembed.corpus.chunk import MAX_CHUNK_CHARACTERS, Chunk

WINDOW_LINES = 60
"""About what an encoder reads (512 tokens of MiniLM are 40 to 60 lines of code)."""
WINDOW_OVERLAP = 10
"""So that a passage of up to ten lines stands whole in one window at least."""


def windows(text: str, language: str, *, first_line: int = 1, symbol: str = "", qualified: str = "") -> Iterator[Chunk]:
    """Yield the windows of `text`, whose first line is `first_line` of its file. Blank lines at their ends are cut."""
    lines = text.split("\n")
    for start in range(0, max(len(lines) - WINDOW_OVERLAP, 1), WINDOW_LINES - WINDOW_OVERLAP):
        first, last = start, min(start + WINDOW_LINES, len(lines))
        while first < last and not lines[first].strip():
            first += 1
        while last > first and not lines[last - 1].strip():
            last -= 1
        joined = "\n".join(lines[first:last])
        # a line without end is cut into pieces of a chunk's size: nothing of it is left out
        for offset in range(0, len(joined), MAX_CHUNK_CHARACTERS):
            piece = joined[offset : offset + MAX_CHUNK_CHARACTERS]
            line = first_line + first + joined.count("\n", 0, offset)
            yield Chunk(
                language, "window", symbol, qualified, piece, None, piece, line, line + piece.rstrip("\n").count("\n")
            )
