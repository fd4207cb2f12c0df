"""The token set of a piece of code: the parts of its identifiers and words, lower-cased, each once."""

import re

MAX_TOKEN_LENGTH = 64
"""Longer parts (base64 in lower case, say) are cut: two that agree in their first 64 characters count as one."""

# HTTPServer_v2 → http, server, v; straße → straße. Digits and underscores only separate.
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+")


def tokens(text: str) -> frozenset[str]:
    """Return the distinct tokens of `text`."""
    return frozenset(part.lower()[:MAX_TOKEN_LENGTH] for part in set(_PART.findall(text)))
