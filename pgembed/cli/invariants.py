"""What `pgembed doctor --strict` holds the database to: what must be so at any time, whatever was killed before.

Each invariant is a query of `sql/queries/invariants.sql` that gives a row for each place where it is broken; here it
has its name in words and its remedy. Files on the disk have theirs in `kept_files.py`.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from pgembed.db.preflight import Problem
from pgembed.db.sql import query
from pgembed.tokens import tokens

Connection = psycopg.Connection[Any]

_SAMPLE = 10_000
"""Rows of a table that are computed again; a smaller table is computed whole."""
_PROBES = 200
"""Chunks whose pairs are all found again: each costs a look at every set, some 20 ms at 100,000."""
_BY_HAND = "No command does this: find out who wrote there, and restore a backup or delete these rows."


@dataclass(frozen=True)
class Invariant:
    """One that a query tells the violations of."""

    query: str
    broken: str
    """What is wrong where there are violations, in words."""
    remedy: str


INVARIANTS = (
    # generations
    Invariant(
        "broken_pointer",
        "The pointer to the generation that answers does not agree with the generations' states",
        "pgembed generations activate ID --force, or rollback: both set the pointer and the states together.",
    ),
    Invariant("broken_generation_rows", "A finished generation lacks what one has", "pgembed reindex --fresh"),
    Invariant(
        "broken_generation_tables",
        "A generation's table is not where its state says",
        "Half detached: pgembed generations prune ID. Else: pgembed reindex --fresh, then generations prune ID.",
    ),
    Invariant(
        "left_generations",
        "A reindex was left in the middle",
        "`pgembed reindex` goes on with it; or drop it: pgembed generations prune ID",
    ),
    Invariant(
        "broken_generation_indexes",
        "A generation's index cannot be used",
        "pgembed reindex --index-only; where it is missing: pgembed reindex --fresh",
    ),
    Invariant("left_indexes", "An index was left behind that nothing uses", "DROP INDEX pgembed.NAME;"),
    # chunks
    Invariant("left_sources", "An ingest was left in the middle", "`pgembed ingest PATH` goes on with it."),
    Invariant(
        "chunks_without_place",
        "Chunks stand nowhere",
        "DELETE FROM pgembed.code_chunks c WHERE NOT EXISTS "
        "(SELECT FROM pgembed.chunk_locations l WHERE l.chunk_id = c.id);",
    ),
    Invariant("places_of_nothing", "Places name a chunk or a file that is not there", _BY_HAND),
    Invariant("chunks_misaddressed", "Chunks are not what their sha256 says", _BY_HAND),
    Invariant("chunks_torn", "Chunks contradict themselves or their places", _BY_HAND),
    Invariant("tokens_unknown", "Token ids are not sorted, or not in pgembed.tokens", _BY_HAND),
    Invariant("tokens_miscounted", "Document frequencies are not what they were counted to be", "pgembed ingest PATH"),
    # search by words
    Invariant("words_missing", "Chunks are not in the search by words", "pgembed ingest PATH"),
    Invariant("words_of_nothing", "The search by words has chunks that are not there", _BY_HAND),
    Invariant(
        "words_lost",
        "The search by words lacks tokens of chunks",
        "UPDATE pgembed.lexical_documents SET described = false WHERE chunk_id = …;  then pgembed ingest PATH",
    ),
    Invariant("words_miscounted", "The search by words counts wrongly", "SELECT pgembed.refresh_lexical_statistics();"),
    # pairs
    Invariant("pairs_disordered", "Pairs are not in order (chunk_a < chunk_b)", "pgembed pairs --full"),
    Invariant("pairs_below_threshold", "Pairs are below the threshold of their run", "pgembed pairs --full"),
    Invariant("pairs_miscomputed", "Pairs do not have the Jaccard of their token sets", "pgembed pairs --full"),
    Invariant("pairs_missing", "Pairs were not found", "pgembed pairs --full"),
    Invariant("pairs_waiting", "Chunks were not compared yet", "pgembed pairs"),
    Invariant("sets_of_nothing", "Token sets are of chunks that are not there", "pgembed pairs --full"),
    Invariant("sets_differing", "Token sets are not those of their chunks", "pgembed pairs --full"),
    Invariant("slices_open", "A finished run of pairs has slices that were not joined", "pgembed pairs --full"),
    # splits and triplets
    Invariant("splits_leaking", "Near-duplicates stand in two splits", "pgembed triplets --refresh"),
    Invariant("splits_misplaced", "Chunks are in another split than their files", "pgembed triplets --refresh"),
    Invariant("triplets_stale", "Triplets are out of date", "pgembed triplets --refresh"),
    Invariant("triplets_of_nothing", "Triplets name chunks that are not there", "pgembed triplets --refresh"),
    Invariant("triplets_across_splits", "Triplets reach across splits", "pgembed triplets --refresh"),
    Invariant("triplets_contradicting", "Triplets contradict themselves", "pgembed triplets --refresh"),
    Invariant("triplets_miscomputed", "Triplets do not have the Jaccard of their chunks", "pgembed triplets --refresh"),
    # training
    Invariant("left_runs", "A training run was left in the middle", "The same `pgembed train` goes on with it."),
    Invariant("runs_incomplete", "A finished training run lacks what one has", "pgembed train --fresh"),
)

OF_A_GENERATION = (
    Invariant("vectors_missing", "chunks have no vector", "pgembed reindex --artefact {artefact}"),
    Invariant("vectors_of_no_chunk", "vectors are of chunks that are not there", _BY_HAND),
    Invariant("vectors_twice", "chunks have several vectors", "pgembed reindex --artefact {artefact} --fresh"),
    Invariant("vectors_of_others", "vectors are another generation's", "pgembed reindex --artefact {artefact} --fresh"),
    Invariant("vectors_of_rejected", "chunks have a vector and are said to have none", _BY_HAND),
    Invariant("vectors_miscounted", "row_count is not the number of vectors", "pgembed reindex --artefact {artefact}"),
    Invariant(
        "vectors_not_unit", "vectors are not of length 1", "Embed anew: pgembed reindex --artefact {artefact} --fresh"
    ),
    Invariant(
        "vectors_beyond_slot",
        "vectors go beyond what the encoder fills",
        "Embed anew: pgembed reindex --artefact {artefact} --fresh",
    ),
)

TOKENS = "Tokens are not those of the code"
WORDS = "The search by words has not the tokens of the code"


def violations(conn: Connection) -> Iterator[Problem]:
    """Yield each invariant of the database that is broken, with its first places. Reads all of it; writes nothing.

    `conn` sees pgvector's functions. To see one state of the database, the caller holds a snapshot.
    """
    parameters: dict[str, Any] = {"sample": _SAMPLE, "probes": _PROBES}
    for invariant in INVARIANTS:
        if where := _places(conn, sql.SQL(query(invariant.query)), parameters):
            yield Problem(f"{invariant.broken}: {where}", invariant.remedy)
    yield from _tokens(conn)
    for generation_id, state, spec, artefact, _, _, rejected in conn.execute(
        query("finished_generations"), {}
    ).fetchall():
        starts, widths = _gaps(spec)
        parameters = {
            "generation_id": generation_id, "state": state, "rejected": rejected, "starts": starts, "widths": widths,
        }  # fmt: skip
        table = sql.Identifier("pgembed", f"code_embeddings_{generation_id}")
        for invariant in OF_A_GENERATION:
            if where := _places(conn, sql.SQL(query(invariant.query)).format(table=table), parameters):
                yield Problem(
                    f"Generation {generation_id} ({state}): {invariant.broken}: {where}",
                    invariant.remedy.format(artefact=artefact),
                )


def _places(conn: Connection, broken: sql.Composable, parameters: dict[str, Any]) -> str:
    """Return how many violations there are and the first of them; empty where there are none."""
    counted = sql.SQL(query("count_violations")).format(violations=broken)
    row = conn.execute(counted, parameters).fetchone()
    assert row is not None  # noqa: S101 - an aggregate gives one row
    return _told(*row) if row[0] else ""


def _told(count: int, examples: list[str]) -> str:
    return "; ".join(examples) + (f"; and {count - len(examples):,} more" if count > len(examples) else "") + "."


def _tokens(conn: Connection) -> Iterator[Problem]:
    """Split the texts of some chunks again."""
    bodies: list[str] = []
    documents: list[str] = []
    with conn.transaction(), conn.cursor("pgembed_tokens") as cursor:
        for chunk_id, symbol, docstring, body, stored, words in cursor.execute(
            query("token_sample"), {"sample": _SAMPLE}
        ):
            found = tokens(body)
            if found != set(stored):
                bodies.append(f"chunk {chunk_id}")
            if words is not None and found | tokens(f"{symbol} {docstring or ''}") != set(words):
                documents.append(f"chunk {chunk_id}")
    for what, places in ((TOKENS, bodies), (WORDS, documents)):
        if places:
            yield Problem(f"{what}: {_told(len(places), places[:3])}", _BY_HAND)


def _gaps(spec: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Return where in a vector there are only zeros: starts, from 1, and widths."""
    ends = itertools.accumulate(tower["slot"] for tower in spec["towers"])
    gaps = [(end - tower["slot"] + tower["dimensions"] + 1, tower["slot"] - tower["dimensions"])
            for tower, end in zip(spec["towers"], ends, strict=True)]  # fmt: skip
    return [start for start, width in gaps if width], [width for _, width in gaps if width]
