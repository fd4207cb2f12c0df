"""/api/triplets: what training reads, why each is there, and a person's marks."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query
from psycopg.rows import dict_row

from pgembed.db.sql import query
from pgembed.mining.triplets import counts, stale_inputs
from pgembed.serving.answers import Counts, Marked, TripletPage, TripletRow
from pgembed.serving.code import Shown, show
from pgembed.serving.failures import Json, NotFound
from pgembed.serving.site import Number, Site, View, answer

_LINES = 40

Kind = Annotated[Literal["docstring", "code"] | None, Query(description="Only this kind.")]
Split = Annotated[Literal["train", "validation", "test"] | None, Query(description="Only this split.")]


def triplet_routes(site: Site) -> APIRouter:
    """Return the routes of triplets."""
    router = APIRouter(prefix="/api/triplets", tags=["triplets"])

    @router.get("", response_model=TripletPage, summary="A page of triplets, each with the reason why it is there")
    def _triplets(
        kind: Kind = None, split: Split = None,
        language: Annotated[str | None, Query(max_length=500, description="Only this language.")] = None,
        page: Annotated[int, Query(ge=1, le=10**9)] = 1, size: Annotated[int, Query(ge=1, le=100)] = 10,
        marked: Annotated[bool, Query(description="Those that a person has marked as bad, instead.")] = False,
        view: View = "data",
    ) -> Json:  # fmt: skip
        name = "serving_blocked_triplets" if marked else "serving_triplets"
        asked = {
            "kind": kind, "split": split, "language": language or None, "skip": (page - 1) * size, "limit": size + 1,
        }  # fmt: skip
        with site.database.connection() as conn, conn.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(query(name), asked).fetchall()
        found = [TripletRow(**row, shown=_shown(row) if view == "page" else None) for row in rows[:size]]
        return answer(TripletPage(found, page, len(rows) > size))

    @router.get("/counts", response_model=Counts, summary="Triplets by kind, split, language and rule")
    def _counts() -> Json:
        with site.database.connection() as conn:
            return answer(Counts([vars(count) for count in counts(conn)], stale_inputs(conn)))

    @router.post("/{ordinal}/block", response_model=Marked, summary="Mark a triplet as bad: the views leave it out")
    def _block(
        ordinal: Number,
        reason: Annotated[str, Body(embed=True, min_length=1, max_length=1000, pattern=r"\S", description="Why.")],
    ) -> Json:
        reason = reason.replace("\0", " ").strip()
        with site.database.connection() as conn:
            conn.execute(query("serving_block_triplet"), {"ordinal": ordinal, "reason": reason})
        return answer(Marked(ordinal, reason))

    @router.delete("/{ordinal}/block", response_model=Marked, summary="Take the mark of a triplet back")
    def _unblock(ordinal: Number) -> Json:
        with site.database.connection() as conn:
            taken = conn.execute(query("serving_unblock_triplet"), {"ordinal": ordinal}).fetchall()
        if not taken:
            raise NotFound(f"Triplet {ordinal} is not marked.", remedy="A refresh may have numbered them anew: reload.")
        return answer(Marked(ordinal, None))

    return router


def _shown(row: dict[str, Any]) -> list[Shown]:
    languages = ("text" if row["kind"] == "docstring" else row["language"], row["language"], row["language"])
    texts = (row["anchor"], row["positive"], row["negative"])
    return [
        show(text, language, first_line=1, most_lines=_LINES) for text, language in zip(texts, languages, strict=True)
    ]
