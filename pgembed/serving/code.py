"""Code as the page shows it: lines of (class, text), highlighted and cut. No markup: the page sets text, not HTML."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

_MOST_COLUMNS = 400
_MOST_HIGHLIGHTED = 200_000
"""Characters: a lexer takes about a second for a million."""

# What pygments calls a language where its name is another.
_LEXERS = {"c_sharp": "csharp", "tsx": "tsx"}

Piece = tuple[str, str]


@dataclass(frozen=True)
class Shown:
    """Some lines of a chunk."""

    first_line: int
    """In the file, from 1; in the chunk where it stands in no file."""
    lines: tuple[tuple[Piece, ...], ...]
    """Pieces (class, text) of each line. The class `cut` says how many characters were left out."""
    more_lines: int
    """Lines that follow and are not shown."""


def show(text: str, language: str, *, first_line: int, most_lines: int) -> Shown:
    """Return up to `most_lines` lines of `text`, each cut to what a person reads."""
    all_lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    return Shown(
        first_line, _highlighted("\n".join(all_lines[:most_lines]), language), max(0, len(all_lines) - most_lines)
    )


@lru_cache(maxsize=2048)
def _highlighted(text: str, language: str) -> tuple[tuple[Piece, ...], ...]:
    lines = text.split("\n")
    kept = [line[:_MOST_COLUMNS] for line in lines]
    found: list[list[Piece]] = [[]]
    for kind, piece in _pieces("\n".join(kept), language):
        first, *others = piece.split("\n")
        row = found[-1]
        if row and row[-1][0] == kind:  # one piece where the lexer made several of a kind: half as many
            row[-1] = kind, row[-1][1] + first
        elif first:
            row.append((kind, first))
        found.extend([(kind, other)] if other else [] for other in others)
    for row, line in zip(found, lines, strict=True):
        if len(line) > _MOST_COLUMNS:
            row.append(("cut", f"{len(line) - _MOST_COLUMNS:,} more characters"))
    return tuple(map(tuple, found))


def _pieces(text: str, language: str) -> Iterator[Piece]:
    lexer = _lexer(language)
    if lexer is None or len(text) > _MOST_HIGHLIGHTED:
        yield "", text
        return
    # not get_tokens: it makes line feeds of carriage returns, and the lines would no longer be those of the file
    for _, kind, piece in lexer.get_tokens_unprocessed(text):
        yield _class_of(kind), piece


@cache
def _lexer(language: str) -> Any:
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        return get_lexer_by_name(_LEXERS.get(language, language))
    except ClassNotFound:
        return None


@cache
def _class_of(kind: Any) -> str:
    """Return what the style sheet calls a kind of token; empty for plain text."""
    from pygments.token import Comment, Keyword, Name, Number, Operator, String

    for known, name in (
        (Comment, "c"), (Operator.Word, "k"), (Keyword, "k"), (String, "s"), (Number, "n"), (Name.Function, "f"),
        (Name.Class, "f"), (Name.Decorator, "d"), (Name.Builtin, "b"), (Name.Tag, "k"), (Name.Attribute, "b"),
    ):  # fmt: skip
        if kind in known:
            return name
    return ""
