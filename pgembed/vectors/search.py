"""Search: a text, by its words and by the vector that a generation's encoder makes of it, against what is stored.

Reads through the SQL function `pgembed.hybrid_search`; writes nothing. Imports no torch, and by words alone no ONNX.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import class_row

from pgembed.db.sql import query
from pgembed.errors import GenerationError, SearchError, UnknownFilter
from pgembed.vectors.generations import Generation, active_id, get_generation
from pgembed.vectors.question import DEFAULT_MODE, Mode, QueryEncoder, Question

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Hit:
    """A chunk that was found, at its first place."""

    rank: int
    score: float
    """By vectors alone the cosine similarity, -1 to 1; else the fused score, see the SQL function `fused`."""
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
    vector_rank: int | None = None
    """Its rank by vectors; None where it is not among the candidates of that ranking."""
    vector_score: float | None = None
    """Cosine similarity, -1 to 1."""
    lexical_rank: int | None = None
    lexical_score: float | None = None
    """BM25."""
    symbol_match: bool = False
    """Whether it is called exactly what was asked."""
    copies: int = 0
    """Near-duplicates that are folded into this hit."""
    also: list[dict[str, Any]] = field(default_factory=list)
    """The nearest 20 of these: chunk_id, jaccard, language, kind, symbol, source, path, lines, locations."""


def search(
    conn: Connection,
    encoder: QueryEncoder | None,
    text: str,
    *,
    k: int = 10,
    mode: Mode = DEFAULT_MODE,
    language: str | None = None,
    path: str | None = None,
    source: str | None = None,
    kind: str | None = None,
    generation_id: int | None = None,
    exact: bool = False,
    collapse: bool = True,
) -> list[Hit]:
    """Return the `k` best chunks for `text`, best first; fewer only if fewer distinct ones pass the filters.

    `mode` is by meaning ("vector"), by words ("lexical", which needs no `encoder`), or both fused ("hybrid").
    `path` is a glob (`src/*`). `generation_id` is the active one by default; `exact` reads every vector instead of the
    index; `collapse` folds near-duplicates into the first of them. `conn` has pgvector's types registered.

    Raises:
        SearchError: nothing is active, the generation cannot be searched, or `encoder` is not the one that made its
            vectors (two models are never mixed); `text` is blank, `k` below 1, or a filter cannot be stored as text
            or names a language, source or kind that does not exist (UnknownFilter).
    """
    limits = Question(k, language, path, source, kind, exact, collapse)
    question = limits.by_text(text, mode)
    if mode != "lexical":
        if encoder is None:
            raise SearchError(f"A search of mode {mode} needs the encoder of the generation.")
        question = question.by_vector(encoder, text, searchable(conn, generation_id))
    return find(conn, question)


def find(conn: Connection, question: Question) -> list[Hit]:
    """Return the hits of a question, best first.

    Raises:
        SearchError: the server refuses; UnknownFilter: a language, kind or source does not exist.
    """
    with refusals(), conn.cursor(row_factory=class_row(Hit)) as cursor:
        return cursor.execute(query("search"), question.parameters()).fetchall()


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what the search functions of the server refuse into SearchError."""
    try:
        yield
    except (
        psycopg.errors.InvalidParameterValue,
        psycopg.errors.ObjectNotInPrerequisiteState,
        psycopg.errors.UndefinedObject,
    ) as error:
        message, remedy = f"{error.diag.message_primary}.", error.diag.message_hint
        if error.diag.column_name is not None:
            raise UnknownFilter(error.diag.column_name, message, remedy=remedy) from error
        raise SearchError(message, remedy=remedy) from error


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
            "(or `pgembed generations list`, then `pgembed generations activate ID`); "
            "`pgembed search --mode lexical` searches by words alone and needs none.",
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


def chunks_without_words(conn: Connection) -> int:
    """Return how many chunks the search by words finds by the words of their bodies at most, or not at all."""
    row = conn.execute(query("chunks_without_words")).fetchone()
    return int(row[0]) if row else 0
