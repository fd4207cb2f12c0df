"""Why a search found what it found: the parts of each score, the plans, and what each part took.

Reads through the SQL functions of the search; writes nothing.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from pgembed.db.sql import query
from pgembed.vectors.question import Question
from pgembed.vectors.search import Hit, refusals

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Term:
    """A token of the query that some chunk holds."""

    token: str
    frequency: int
    """Chunks that hold it, as of the last ingest."""
    idf: float


@dataclass(frozen=True)
class Explanation:
    """What `pgembed search --explain` shows beside the hits."""

    settings: dict[str, float]
    """The rows of search_settings."""
    terms: list[Term]
    """The query's tokens, the rarest first."""
    unknown: list[str]
    """Tokens of the query that no chunk holds."""
    matched: dict[int, list[str]]
    """By chunk: the tokens that it shares with the query, the rarest first."""
    plans: dict[str, list[str]]
    """By part (vectors, words): the strategy, and the planner's plan."""
    milliseconds: dict[str, float] = field(default_factory=dict)
    """By part. Those of the server are of a second run: what the first had to read is in memory by then."""


def explain(conn: Connection, question: Question, hits: Sequence[Hit]) -> Explanation:
    """Return what stands behind `hits`; each part of the search is run once more, by itself, and timed."""
    parameters = question.parameters()
    plans: dict[str, list[str]] = {}
    milliseconds: dict[str, float] = {}
    terms: list[Term] = []
    names: dict[int, str] = {}
    matched: dict[int, list[str]] = {}
    with refusals():
        row = conn.execute(query("search_depth"), parameters).fetchone()
        parameters["depth"] = min(int(row[0]) if row else question.k, 2**31 - 1)
        if question.query is not None:
            plans["vectors"] = [line for (line,) in conn.execute(query("explain_vectors"), parameters)]
            milliseconds["vectors"] = _timed(conn, "time_vectors", parameters)
        if question.tokens is not None:
            for token, token_id, frequency, idf in conn.execute(query("search_terms"), parameters):
                terms.append(Term(token, frequency, idf))
                names[token_id] = token
            found = conn.execute(
                query("matched_terms"), {"token_ids": list(names), "chunk_ids": [hit.chunk_id for hit in hits]}
            )
            matched = {chunk_id: [names[i] for i in names if i in ids] for chunk_id, ids in found}
            plans["words"] = [line for (line,) in conn.execute(query("explain_words"), parameters)]
            milliseconds["words"] = _timed(conn, "time_words", parameters)
        milliseconds["all of it"] = _timed(conn, "search", parameters)
        settings = dict(conn.execute(query("search_settings")).fetchall())
    unknown = sorted(set(question.tokens or ()) - {term.token for term in terms})
    return Explanation(settings, terms, unknown, matched, plans, milliseconds)


def _timed(conn: Connection, name: str, parameters: dict[str, Any]) -> float:
    started = time.perf_counter()
    conn.execute(query(name), parameters).fetchall()
    return (time.perf_counter() - started) * 1000
