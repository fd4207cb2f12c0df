"""The token set of a piece of code: the parts of its identifiers and words, lower-cased, each once."""

import re
import unicodedata

MAX_TOKEN_LENGTH = 64
"""Longer parts (base64 in lower case, say) are cut: two that agree in their first 64 characters count as one."""

# HTTPServer_v2 → http, server, v. Digits and underscores only separate. Letters beyond ASCII go to `_split_word`.
_ASCII_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_WORD = re.compile(r"[^\W\d_]+")


def tokens(text: str) -> frozenset[str]:
    """Return the distinct tokens of `text`."""
    if text.isascii():
        parts = set(_ASCII_PART.findall(text))
    else:
        parts = set()
        # composed, as Python reads identifiers too: é is one letter, however it was typed
        for word in _words(unicodedata.normalize("NFC", text)):
            parts.update(_ASCII_PART.findall(word) if word.isascii() else _split_word(word))
    return frozenset(part.lower()[:MAX_TOKEN_LENGTH] for part in parts)


def _split_word(word: str) -> list[str]:
    """Split a word of any script at its case changes: ÉcoleNormale → école, normale; ИмяФайла → имя, файла."""
    cuts = [0]
    for position in range(1, len(word)):
        before, here = word[position - 1], word[position]
        starts_word = here.isupper() and not before.isupper()
        ends_acronym = before.isupper() and here.islower() and position - 1 > cuts[-1]
        if starts_word:
            cuts.append(position)
        elif ends_acronym:
            cuts.append(position - 1)
    pieces = (word[start:end] for start, end in zip(cuts, [*cuts[1:], len(word)], strict=True))
    # lower-casing may give marks that are no letters (İ): they separate, as they would in the text
    return [part for piece in pieces for part in _words(unicodedata.normalize("NFC", piece.lower()))]


def _words(text: str) -> set[str]:
    words: set[str] = set()
    for word in set(_WORD.findall(text)):
        # \w has numbers that \d has not: ¼, ², Ⅷ
        words.update([word] if word.isalpha() else "".join(c if c.isalpha() else " " for c in word).split())
    return words
