"""Texts to token ids, by the `tokenizers` library alone: the same ids as transformers gives, without importing it."""

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pgembed.encoders.windows import Window, cut_windows
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
        # a special token is one wherever it stands, and half of one at the cut is some other words
        added = self._unlimited.get_added_tokens_decoder().values()
        self._longest_special = max((len(token.content) for token in added), default=0)
        self._limited: dict[int, tokenizers.Tokenizer] = {}
        self._lock = threading.Lock()
        self.max_tokens = max_tokens
        self.truncated = 0
        """Texts that were longer than the limit, since this object was made."""

    def encode(self, texts: Sequence[str], *, max_tokens: int | None = None) -> list[list[int]]:
        """Return the ids of each text, special tokens included, cut to the limit. No padding.

        `max_tokens` can only lower the tokenizer's own limit.
        """
        return [ids for ids, _ in self.encode_marked(texts, max_tokens=max_tokens)]

    def encode_marked(self, texts: Sequence[str], *, max_tokens: int | None = None) -> list[tuple[list[int], bool]]:
        """Like `encode`, and with each text's ids whether the text was longer."""
        limit = self._limit(max_tokens)
        tokenizer = self._with_limit(limit)
        # An enormous text costs no more than the part of it that counts.
        cut = limit * _CHARACTERS_PER_TOKEN
        encodings = tokenizer.encode_batch([text[:cut] for text in texts], add_special_tokens=True)
        for position, text in enumerate(texts):
            if len(text) > cut and not _fills_the_limit(encodings[position], cut - self._longest_special):
                encodings[position] = tokenizer.encode(text, add_special_tokens=True)
        marked = [(encoding.ids, bool(encoding.overflowing)) for encoding in encodings]
        with self._lock:
            self.truncated += sum(is_long for _, is_long in marked)
        return marked

    def windows(self, text: str, *, prompt: str = "", max_tokens: int | None = None) -> list[Window]:
        """Return all of a text as windows that overlap, each with `prompt` and the special tokens around it."""
        encoding = self._unlimited.encode(prompt + text, add_special_tokens=False)
        # of a token that holds the prompt's last blank and the text's first word, the text is the greater part
        in_prompt = sum(end <= len(prompt) for _, end in encoding.offsets) if prompt else 0
        before, after = self._frame
        return cut_windows(
            encoding.ids[in_prompt:],
            prompt=encoding.ids[:in_prompt],
            before=before,
            after=after,
            limit=self._limit(max_tokens),
        )

    @cached_property
    def _frame(self) -> tuple[list[int], list[int]]:
        """Return the special tokens that stand before and after a text."""
        plain = self._unlimited.encode("x", add_special_tokens=False).ids
        framed = self._unlimited.encode("x", add_special_tokens=True).ids
        start = next(n for n in range(len(framed)) if framed[n : n + len(plain)] == plain)
        return framed[:start], framed[start + len(plain) :]

    def _limit(self, max_tokens: int | None) -> int:
        return min(max_tokens or self.max_tokens, self.max_tokens)

    def _with_limit(self, limit: int) -> "tokenizers.Tokenizer":
        """Return the tokenizer that cuts at `limit`: the library's own cut keeps the special token at the end."""
        with self._lock:
            if limit not in self._limited:
                copy = self._unlimited.from_str(self._unlimited.to_str())
                copy.enable_truncation(max_length=limit)
                self._limited[limit] = copy
            return self._limited[limit]


def _fills_the_limit(encoding: "tokenizers.Encoding", undisturbed: int) -> bool:
    """Tell whether whatever follows the text could not change the ids that were kept.

    So it is when they end before the character `undisturbed`, and whole words follow the last word that was kept: a
    tokenizer cuts a text into words by what stands beside the cut, and then takes each word for itself.
    """
    if max((end for _, end in encoding.offsets), default=0) > undisturbed:
        return False
    kept = [word for word in encoding.word_ids if word is not None]
    beyond = [word for part in encoding.overflowing for word in part.word_ids if word is not None]
    return bool(kept and beyond) and max(beyond) > max(kept) + 1
