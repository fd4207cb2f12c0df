"""Search: a text, embedded by the encoder of a generation, against the vectors of that generation.

Reads through the SQL function `pgembed.search`; writes nothing. Imports no torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg.rows import class_row

from pgembed.db.sql import query
from pgembed.encoders.artefact import Manifest
from pgembed.encoders.spec import Role
from pgembed.errors import GenerationError, SearchError
from pgembed.vectors.generations import Generation, active_id, get_generation

Connection = psycopg.Connection[Any]

_MAXIMUM_K = 2**31 - 1  # what an integer of the server holds


class QueryEncoder(Protocol):
    """What a search needs of an encoder."""

    manifest: Manifest

    def embed(self, texts: list[str], *, role: Role) -> npt.NDArray[np.float32]:
        """Return (N, 2560) float32, L2-normalised."""


@dataclass(frozen=True)
class Hit:
    """A chunk that was found, at its first place."""

    rank: int
    score: float
    """Cosine similarity, -1 to 1."""
    chunk_id: int
    language: str
    kind: str
    symbol: str
    source: str | None
    path: str | None
    start_line: int | None
    end_line: int | None
    content: str
    locations: int
    """Places where this very code stands."""


def search(
    conn: Connection,
    encoder: QueryEncoder,
    text: str,
    *,
    k: int = 10,
    language: str | None = None,
    path: str | None = None,
    source: str | None = None,
    kind: str | None = None,
    generation_id: int | None = None,
    exact: bool = False,
) -> list[Hit]:
    """Return the `k` chunks nearest in meaning to `text`, best first; fewer only if fewer pass the filters.

    `path` is a glob (`src/*`). `generation_id` is the active one by default; `exact` reads every vector instead of the
    index. `conn` has pgvector's types registered.

    Raises:
        SearchError: nothing is active, the generation cannot be searched, or `encoder` is not the one that made its
            vectors (two models are never mixed); `text` is blank, `k` below 1, or a filter cannot be stored as text.
    """
    if not text.strip():
        raise SearchError("The text to search for is empty.")
    _require_storable(text.replace("\0", " "), language=language, path=path, source=source, kind=kind)
    generation = searchable(conn, generation_id)
    if encoder.manifest.fingerprint != generation.fingerprint:
        raise SearchError(
            f"Generation {generation.id} was made by the encoder {generation.encoder}; "
            f"{encoder.manifest.spec.name} in {encoder.manifest.path} is another one, "
            "and its vectors mean other things.",
            remedy=f"Use the encoder in {generation.onnx_path}.",
        )
    vector = encoder.embed([text], role="query")[0]
    try:
        with conn.cursor(row_factory=class_row(Hit)) as cursor:
            return cursor.execute(
                query("search"),
                {
                    "query": vector,
                    "k": min(k, _MAXIMUM_K),
                    "language": language,
                    "path": path,
                    "source": source,
                    "kind": kind,
                    "generation_id": generation.id,
                    "exact": exact,
                },
            ).fetchall()
    except (
        psycopg.errors.InvalidParameterValue,
        psycopg.errors.ObjectNotInPrerequisiteState,
        psycopg.errors.UndefinedObject,
    ) as error:
        raise SearchError(f"{error.diag.message_primary}.", remedy=error.diag.message_hint) from error


def _require_storable(text: str, **filters: str | None) -> None:
    """Refuse what neither a tokenizer nor a text column takes: such as a command line's bytes that are no UTF-8."""
    for name, value in {"text": text, **filters}.items():
        if value is not None and ("\0" in value or any("\ud800" <= c <= "\udfff" for c in value)):
            raise SearchError(f"The {name} holds a NUL byte or is not valid Unicode: {value[:100]!r}.")


def searchable(conn: Connection, generation_id: int | None = None) -> Generation:
    """Return the generation that answers: the one named, else the active one.

    Raises:
        SearchError: nothing is active, there is no such generation, or it is not finished.
    """
    chosen = active_id(conn) if generation_id is None else generation_id
    if chosen is None:
        raise SearchError(
            "No generation is active, so there is nothing to search.",
            remedy="Embed the chunks and activate the result: pgembed reindex --activate "
            "(or `pgembed generations list`, then `pgembed generations activate ID`).",
        )
    try:
        generation = get_generation(conn, chosen)
    except GenerationError as error:
        raise SearchError(error.message, remedy=error.remedy) from error
    if not generation.attached or generation.state not in ("ready", "active", "retired"):
        raise SearchError(
            f"Generation {generation.id} cannot be searched: it is {generation.state}.",
            remedy=f"Finish it: pgembed reindex --artefact {generation.onnx_path}",
        )
    return generation


def encoder_of(generation: Generation, *, provider: str = "cpu", threads: int | None = None) -> Any:
    """Load the encoder that made a generation's vectors, from where `reindex` found it.

    Raises:
        SearchError: its folder is gone from this machine, or holds another encoder by now.
        EncoderError: the folder is damaged.
    """
    from pgembed.encoders.onnx_encoder import OnnxEncoder

    folder = Path(generation.onnx_path)
    if not folder.is_dir():
        raise SearchError(
            f"The encoder of generation {generation.id} ({generation.encoder}) is not on this machine: "
            f"there is no folder {folder}.",
            remedy="Copy it there from the machine that ran reindex, or export it again "
            "(pgembed export) and run `pgembed reindex --artefact` with it: only its path is updated.",
        )
    encoder = OnnxEncoder.load(folder, provider=provider, threads=threads)
    if encoder.manifest.onnx_sha256 != generation.onnx_sha256:
        raise SearchError(
            f"The encoder in {folder} is not the one that made generation {generation.id}: its graph differs.",
            remedy=f"Put the encoder {generation.encoder} back there, or embed with this one: "
            f"pgembed reindex --artefact {folder}",
        )
    return encoder
