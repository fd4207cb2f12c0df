"""Texts to token ids, by the `tokenizers` library alone: the same ids as transformers gives, without importing it."""

from collections.abc import Sequence
from pathlib import Path

from pgembed.errors import EncoderError, MissingExtra


class Tokenizer:
    """A tokenizer.json with its own truncation and padding switched off (MiniLM's file carries both, at 128)."""

    def __init__(self, path: Path, *, max_tokens: int) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise MissingExtra("onnx", "Embedding", str(error)) from error
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:
            raise EncoderError(f"{path} is not a tokenizer that can be read: {error}") from error
        self._tokenizer.no_padding()
        self.max_tokens = max_tokens
        self.truncated = 0
        """Texts that were longer than the limit, since this object was made."""

    def encode(self, texts: Sequence[str], *, max_tokens: int | None = None) -> list[list[int]]:
        """Return the ids of each text, special tokens included, cut to the limit. No padding."""
        limit = min(max_tokens or self.max_tokens, self.max_tokens)
        # the library's own truncation keeps the special token at the end, which cutting the ids would lose
        if (self._tokenizer.truncation or {}).get("max_length") != limit:
            self._tokenizer.enable_truncation(max_length=limit)
        # A token is rarely longer than a few dozen characters: cutting the text first keeps an enormous one from
        # costing more than the part of it that can count.
        encodings = self._tokenizer.encode_batch([text[: limit * 64] for text in texts], add_special_tokens=True)
        self.truncated += sum(
            bool(encoding.overflowing) or len(text) > limit * 64
            for encoding, text in zip(encodings, texts, strict=True)
        )
        return [encoding.ids for encoding in encodings]
