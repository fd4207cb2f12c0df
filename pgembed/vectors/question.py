"""What is searched for: a vector, words, a name, and within which limits. Made of a text, or of a chunk as example."""

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from pgembed.encoders.artefact import Manifest
from pgembed.encoders.spec import Role
from pgembed.errors import SearchError
from pgembed.tokens import tokens
from pgembed.vectors.generations import Generation

Mode = Literal["vector", "lexical", "hybrid"]
MODES: tuple[Mode, ...] = get_args(Mode)

DEFAULT_MODE: Mode = "hybrid"
"""By measurement: see README, "Search" (benchmarks/hybrid.py)."""

_MAXIMUM_K = 2**31 - 1  # what an integer of the server holds
_MAXIMUM_SYMBOL = 500  # characters: a longer text is no name


class QueryEncoder(Protocol):
    """What a search needs of an encoder."""

    manifest: Manifest

    def embed(self, texts: list[str], *, role: Role) -> npt.NDArray[np.float32]:
        """Return (N, 2560) float32, L2-normalised."""


@dataclass(frozen=True)
class Question:
    """The arguments of the SQL function `pgembed.hybrid_search`."""

    k: int = 10
    language: str | None = None
    path: str | None = None
    """A glob, such as `src/*`."""
    source: str | None = None
    kind: str | None = None
    exact: bool = False
    """Read every vector instead of the index."""
    collapse: bool = True
    """Fold near-duplicates of a hit into it."""
    query: npt.NDArray[np.float32] | None = None
    """(2560,); None: not by vectors."""
    tokens: tuple[str, ...] | None = None
    """None: not by words."""
    symbol: str | None = None
    """Chunks of exactly this name rise."""
    generation_id: int | None = None
    example: int | None = None
    """A chunk that is no hit, nor are its near-duplicates."""

    def parameters(self) -> dict[str, Any]:
        """Return what the queries take."""
        return {
            **vars(self),
            "k": min(self.k, _MAXIMUM_K),
            "tokens": None if self.tokens is None else list(self.tokens),
        }

    def by_text(self, text: str, mode: Mode) -> "Question":
        """Return this question about the words and the name that `text` is; its vector is still missing.

        Raises:
            SearchError: the text is blank, or it or a filter cannot be stored as text.
        """
        if not text.strip():
            raise SearchError("The text to search for is empty.")
        _require_storable(text.replace("\0", " "))
        self.check()
        if mode == "vector":
            return self
        name = text.strip()
        is_name = "\0" not in name and len(name) <= _MAXIMUM_SYMBOL
        return replace(self, tokens=tuple(sorted(tokens(text))), symbol=name if is_name else None)

    def by_vector(self, encoder: QueryEncoder, text: str, generation: Generation) -> "Question":
        """Return this question with the vector of `text`.

        Raises:
            SearchError: `encoder` is not the one that made the generation's vectors: two models are never mixed.
        """
        if encoder.manifest.fingerprint != generation.fingerprint:
            raise SearchError(
                f"Generation {generation.id} was made by the encoder {generation.encoder}; "
                f"{encoder.manifest.spec.name} in {encoder.manifest.path} is another one, "
                "and its vectors mean other things.",
                remedy=f"Use the encoder in {generation.onnx_path}.",
            )
        return replace(self, query=encoder.embed([text], role="query")[0], generation_id=generation.id)

    def check(self) -> None:
        """Refuse filters that no text column holds. Raises SearchError."""
        _require_storable("", language=self.language, path=self.path, source=self.source, kind=self.kind)


def _require_storable(text: str, **filters: str | None) -> None:
    """Refuse what neither a tokenizer nor a text column takes: such as a command line's bytes that are no UTF-8."""
    for name, value in {"text": text, **filters}.items():
        if value is not None and ("\0" in value or any("\ud800" <= c <= "\udfff" for c in value)):
            raise SearchError(f"The {name} holds a NUL byte or is not valid Unicode: {value[:100]!r}.")
