"""Texts to token ids, by the `tokenizers` library alone: the same ids as transformers gives, without importing it."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pgembed.errors import EncoderError, MissingExtra

if TYPE_CHECKING:
    import tokenizers

# Characters per token that are looked at first. Code has about 3; a text that needs more is read again in full.
_CHARACTERS_PER_TOKEN = 64


class Tokenizer:
    """A tokenizer.json with its own truncation and padding switched off (MiniLM's file carries both, at 128).

    May be used from several threads.
    """

    def __init__(self, path: Path, *, max_tokens: int) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise MissingExtra("onnx", "Embedding", str(error)) from error
        try:
            self._unlimited = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:
            raise EncoderError(f"{path} is not a tokenizer that can be read: {error}") from error
        self._unlimited.no_padding()
        self._unlimited.no_truncation()
        self._limited: dict[int, tokenizers.Tokenizer] = {}
        self._lock = threading.Lock()
        self.max_tokens = max_tokens
        self.truncated = 0
        """Texts that were longer than the limit, since this object was made."""

    def encode(self, texts: Sequence[str], *, max_tokens: int | None = None) -> list[list[int]]:
        """Return the ids of each text, special tokens included, cut to the limit. No padding.

        `max_tokens` can only lower the tokenizer's own limit.
        """
        limit = min(max_tokens or self.max_tokens, self.max_tokens)
        tokenizer = self._with_limit(limit)
        # An enormous text costs no more than the part of it that counts.
        cut = limit * _CHARACTERS_PER_TOKEN
        encodings = tokenizer.encode_batch([text[:cut] for text in texts], add_special_tokens=True)
        for position, text in enumerate(texts):
            if len(text) > cut and not _fills_the_limit(encodings[position]):
                encodings[position] = tokenizer.encode(text, add_special_tokens=True)
        with self._lock:
            self.truncated += sum(bool(encoding.overflowing) for encoding in encodings)
        return [encoding.ids for encoding in encodings]

    def _with_limit(self, limit: int) -> "tokenizers.Tokenizer":
        """Return the tokenizer that cuts at `limit`: the library's own cut keeps the special token at the end."""
        with self._lock:
            if limit not in self._limited:
                copy = self._unlimited.from_str(self._unlimited.to_str())
                copy.enable_truncation(max_length=limit)
                self._limited[limit] = copy
            return self._limited[limit]


def _fills_the_limit(encoding: "tokenizers.Encoding") -> bool:
    """Tell whether whatever follows the text could not change the ids that were kept.

    So it is when whole words follow the last word that was kept: a tokenizer cuts a text into words by what stands
    beside the cut, and then takes each word for itself.
    """
    kept = [word for word in encoding.word_ids if word is not None]
    beyond = [word for part in encoding.overflowing for word in part.word_ids if word is not None]
    return bool(kept and beyond) and max(beyond) > max(kept) + 1
