"""A chunker for .ini and .cfg files: a chunk for each section."""

import re
from collections.abc import Mapping

from pgembed.corpus.chunk import Chunk, Chunked

_HEADING = re.compile(r"\[(?P<name>[^]]+)\]")


class IniChunker:
    """Cuts before each `[section]`; comment lines right above a heading belong to it, and are its documentation."""

    # Raise the number whenever the same file would give other chunks: files are then read again.
    name = "example-ini/1"
    extensions: Mapping[str, str] = {".ini": "ini", ".cfg": "ini"}

    def chunk(self, text: str, language: str) -> Chunked:
        """Return a chunk for each section; what stands before the first one is left out."""
        lines = text.split("\n")
        headings = [n for n, line in enumerate(lines) if _HEADING.match(line)]
        starts = [_first_comment(lines, heading) for heading in headings]
        chunks = []
        for heading, start, end in zip(headings, starts, [*starts[1:], len(lines)], strict=True):
            while not lines[end - 1].strip():
                end -= 1
            match = _HEADING.match(lines[heading])
            assert match is not None
            documentation = "\n".join(line.lstrip("#; ") for line in lines[start:heading])
            chunks.append(
                Chunk(
                    language=language,
                    kind="section",
                    symbol=match["name"],
                    qualified=match["name"],
                    content="\n".join(lines[start:end]),
                    docstring=documentation or None,
                    body="\n".join(lines[heading:end]),
                    start_line=start + 1,
                    end_line=end,
                )
            )
        return Chunked(chunks)


def _first_comment(lines: list[str], heading: int) -> int:
    first = heading
    while first > 0 and lines[first - 1].startswith(("#", ";")):
        first -= 1
    return first
