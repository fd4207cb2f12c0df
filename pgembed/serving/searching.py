"""Searches as the API answers them: the generation is chosen, the text embedded with others, the database asked.

No connection is held while a text is embedded: that may wait for a model to be loaded.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

from pgembed.errors import SearchError, UnknownFilter
from pgembed.serving.answers import (
    Answering,
    Compared,
    Contribution,
    Explained,
    Found,
    Like,
    Neighbours,
    Reason,
    Side,
)
from pgembed.serving.code import Shown, show
from pgembed.serving.models import named
from pgembed.serving.site import Limits, Site
from pgembed.vectors.example import Example, by_example, example_at
from pgembed.vectors.excerpt import excerpt
from pgembed.vectors.explain import Explanation, explain
from pgembed.vectors.generations import Generation
from pgembed.vectors.question import Mode, Question
from pgembed.vectors.search import Hit, chunks_without_words, find

_EXCERPT_LINES = 8


def search(site: Site, text: str, mode: Mode, limits: Limits, generation_id: int | None, *, excerpts: bool) -> Found:
    """Return the hits for a text, all from one generation."""
    try:
        return _search(site, text, mode, limits, generation_id, excerpts=excerpts)
    except UnknownFilter:
        raise
    except SearchError:
        if generation_id is not None or mode == "lexical":
            raise
        # the generation that was chosen may have been pruned in between; a second failure is what it says
        return _search(site, text, mode, limits, None, excerpts=excerpts)


def _search(site: Site, text: str, mode: Mode, limits: Limits, generation_id: int | None, *, excerpts: bool) -> Found:
    question, generation, milliseconds = _question(site, text, mode, limits, generation_id)
    started = time.perf_counter()
    with site.database.connection() as conn:
        hits = find(conn, question)
        without_words = chunks_without_words(conn) if question.tokens is not None and len(hits) < question.k else 0
    milliseconds["search"] = (time.perf_counter() - started) * 1000
    notes = limits.notes()
    if without_words:
        notes.append(f"{without_words:,} chunks are found by their bodies' words at most; `pgembed ingest` mends that.")
    return Found(
        text, mode, _answering(generation), hits, excerpts_of(hits, text) if excerpts else None, notes, milliseconds
    )


def compare(site: Site, text: str, mode: Mode, limits: Limits, a: int, b: int, *, excerpts: bool) -> Compared:
    """Return what two generations find for a text."""
    sides = [search(site, text, mode, limits, generation_id, excerpts=excerpts) for generation_id in (a, b)]
    ranks = [{hit.chunk_id: hit.rank for hit in side.hits} for side in sides]
    there = [[ranks[1 - n].get(hit.chunk_id) for hit in side.hits] for n, side in enumerate(sides)]
    return Compared(Side(sides[0], there[0]), Side(sides[1], there[1]), len(ranks[0].keys() & ranks[1].keys()))


def explained(
    site: Site, text: str, mode: Mode, limits: Limits, generation_id: int | None, chunk_id: int | None
) -> Explained:
    """Return what the scores of a search are made of; with `chunk_id`, that hit's alone."""
    question, _, milliseconds = _question(site, text, mode, limits, generation_id)
    with site.database.connection() as conn:
        hits = [hit for hit in find(conn, question) if chunk_id is None or hit.chunk_id == chunk_id]
        found = explain(conn, question, hits)
    found = replace(found, milliseconds={**milliseconds, **found.milliseconds})
    return Explained([_reason(hit, found, alone=mode == "vector") for hit in hits], found)


def neighbours(site: Site, chunk_id: int, limits: Limits, generation_id: int | None, *, excerpts: bool) -> Neighbours:
    """Return what is like a chunk by the vectors of a generation: no model is asked."""
    with site.database.connection() as conn:
        generation = named(conn, generation_id)
        example = Example(chunk_id, "", f"chunk {chunk_id}", 0, 0, "")
        hits = find(conn, by_example(conn, limits.question(), example, generation))
    return Neighbours(
        _answering(generation), hits, excerpts_of(hits, "") if excerpts else None, [], limits.notes()
    )  # fmt: skip


def like(site: Site, place: str, limits: Limits, generation_id: int | None, *, excerpts: bool) -> Like:
    """Return what is like the code at `place`, written `path:line`, by a generation's vectors: no model is asked."""
    with site.database.connection() as conn:
        generation = named(conn, generation_id)
        example = example_at(conn, place, limits.source or None)
        hits = find(conn, by_example(conn, limits.question(), example, generation))
    return Like(example, _answering(generation), hits, excerpts_of(hits, "") if excerpts else None, limits.notes())


def excerpts_of(hits: Sequence[Hit], text: str) -> list[Shown]:
    """Return for each hit the lines that share most with `text`."""
    found = []
    for hit in hits:
        offset, lines = excerpt(hit.content, text, _EXCERPT_LINES)
        total = hit.content.replace("\r\n", "\n").removesuffix("\n").count("\n") + 1
        shown = show(lines, hit.language, first_line=(hit.start_line or 1) + offset, most_lines=_EXCERPT_LINES)
        found.append(replace(shown, more_lines=max(0, total - offset - len(shown.lines))))
    return found


def _question(
    site: Site, text: str, mode: Mode, limits: Limits, generation_id: int | None
) -> tuple[Question, Generation | None, dict[str, float]]:
    question = limits.question().by_text(text, mode)
    if mode == "lexical":
        return question, None, {}
    with site.database.connection() as conn:
        generation = site.models.answering(conn) if generation_id is None else named(conn, generation_id)
    started = time.perf_counter()
    with site.models.of(generation) as encoder:
        question = question.by_vector(encoder, text, generation)
    return question, generation, {"embedding": (time.perf_counter() - started) * 1000}


def _answering(generation: Generation | None) -> Answering | None:
    return None if generation is None else Answering(generation.id, generation.encoder)


def _reason(hit: Hit, found: Explanation, *, alone: bool) -> Reason:
    """Return the parts of a score, by the formula of the SQL function `fused`."""
    parts = []
    constant = found.settings["rrf_k"]
    for part, rank, score in (
        ("vectors", hit.vector_rank, hit.vector_score), ("words", hit.lexical_rank, hit.lexical_score),
    ):  # fmt: skip
        if rank is None:
            continue
        if alone and score is not None:
            parts.append(Contribution(part, rank, score, score, "the cosine similarity itself"))
            continue
        weight = found.settings["vector_weight" if part == "vectors" else "lexical_weight"]
        parts.append(
            Contribution(part, rank, score, weight / (constant + rank), f"{weight:g} / ({constant:g} + rank {rank})")
        )
    if hit.symbol_match and not alone:
        weight = found.settings["symbol_weight"]
        parts.append(Contribution("name", None, None, weight / (constant + 1), f"{weight:g} / ({constant:g} + 1)"))
    return Reason(hit.rank, hit.chunk_id, hit.score, parts, found.matched.get(hit.chunk_id, []))
