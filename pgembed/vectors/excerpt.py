"""The lines of a chunk that say most about why it was found."""

import re

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_MINIMUM_WORD = 3  # 'a', 'of', 'to' point nowhere


def excerpt(content: str, query: str, lines: int = 8) -> tuple[int, str]:
    """Return the first line's offset in `content` (from 0) and up to `lines` lines.

    The window is the one that shares most distinct words with `query`; on a tie, as where nothing is shared, the first.
    """
    # splitlines would end lines at form feeds and others too; offsets count as the line numbers of a file do
    all_lines = content.replace("\r\n", "\n").removesuffix("\n").split("\n")
    wanted = _words(query)
    found = [wanted & _words(line) for line in all_lines]

    def shared(start: int) -> int:
        return len(set().union(*found[start : start + lines]))

    starts = range(max(1, len(all_lines) - lines + 1))
    # a tie goes to the earlier one: the head says what the chunk is, and a later window must show more than it does
    best = max(starts, key=lambda start: (shared(start), -start))
    return best, "\n".join(all_lines[best : best + lines])


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text) if len(word) >= _MINIMUM_WORD}
