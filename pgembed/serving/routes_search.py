"""/api/search, /api/explain, /api/compare, /api/like, /api/chunks, /api/hits: by a text, a place, and near a chunk."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from psycopg.rows import dict_row

from pgembed.db.sql import query
from pgembed.serving import searching
from pgembed.serving.answers import Chunk, Compared, Explained, Found, Like, Neighbours
from pgembed.serving.code import show
from pgembed.serving.failures import Json, NotFound, NotReady
from pgembed.serving.site import GenerationId, Limits, Number, Site, View, answer
from pgembed.vectors.question import DEFAULT_MODE, Mode

_PLACES = 50
_LOOK_ALIKES = 20
_WHOLE_LINES = 2000

Text = Annotated[str, Query(max_length=8000, description="What is looked for, in words or as code.")]
ModeOption = Annotated[Mode, Query(description="By meaning (vector), by words (lexical), or both fused (hybrid).")]
Place = Annotated[
    str, Query(max_length=4000, description="path:line, such as src/shop/cart.py:42; the path may be the end of one.")
]
OneGeneration = Annotated[int, Query(ge=1, le=2**63 - 1, description="A generation.")]
LimitsOption = Annotated[Limits, Depends()]


def search_routes(site: Site) -> APIRouter:
    """Return the routes of search."""
    router = APIRouter(prefix="/api", tags=["search"])

    @router.get("/search", response_model=Found, summary="Search by a text")
    def _search(
        q: Text, limits: LimitsOption, mode: ModeOption = DEFAULT_MODE, generation: GenerationId = None,
        view: View = "data",
    ) -> Json:  # fmt: skip
        return answer(searching.search(site, q, mode, limits, generation, excerpts=view == "page"))

    @router.get("/explain", response_model=Explained, summary="What the scores of a search are made of")
    def _explain(
        q: Text, limits: LimitsOption, mode: ModeOption = DEFAULT_MODE, generation: GenerationId = None,
        chunk: Annotated[int | None, Query(ge=1, le=2**63 - 1, description="Of this hit alone.")] = None,
    ) -> Json:  # fmt: skip
        return answer(searching.explained(site, q, mode, limits, generation, chunk))

    @router.get("/compare", response_model=Compared, summary="Two generations on one query")
    def _compare(
        q: Text, a: OneGeneration, b: OneGeneration, limits: LimitsOption, mode: ModeOption = "vector",
        view: View = "data",
    ) -> Json:  # fmt: skip
        return answer(searching.compare(site, q, mode, limits, a, b, excerpts=view == "page"))

    @router.get("/like", response_model=Like, summary="What is like the code at a place")
    def _like(place: Place, limits: LimitsOption, generation: GenerationId = None, view: View = "data") -> Json:
        return answer(searching.like(site, place, limits, generation, excerpts=view == "page"))

    @router.get("/chunks/{chunk}", response_model=Chunk, summary="A chunk, whole, and where it stands")
    def _chunk(chunk: Number) -> Json:
        asked = {"chunk_id": chunk, "limit": _PLACES}
        with site.database.connection() as conn, conn.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute(query("serving_chunk"), asked).fetchone()
            places = cursor.execute(query("serving_places"), asked).fetchall()
        if row is None:
            raise NotFound(f"There is no chunk {chunk}.", remedy="It may have gone with an ingest: search again.")
        first = places[0]["start_line"] if places else 1
        shown = show(row["content"], row["language"], first_line=first, most_lines=_WHOLE_LINES)
        return answer(Chunk(**row, places=places, shown=shown))

    @router.get("/hits/{chunk}/neighbours", response_model=Neighbours, summary="What is like a chunk")
    def _neighbours(chunk: Number, limits: LimitsOption, generation: GenerationId = None, view: View = "data") -> Json:
        asked = {"chunk_id": chunk, "limit": _LOOK_ALIKES}
        with site.database.connection() as conn, conn.cursor(row_factory=dict_row) as cursor:
            if cursor.execute(query("serving_chunk"), asked).fetchone() is None:
                raise NotFound(f"There is no chunk {chunk}.", remedy="It may have gone with an ingest: search again.")
            look_alikes = cursor.execute(query("serving_look_alikes"), asked).fetchall()
        try:
            found = searching.neighbours(site, chunk, limits, generation, excerpts=view == "page")
        except NotReady as error:  # words in common are there without any vector
            found = Neighbours(None, [], None, [], [error.message])
        return answer(replace(found, look_alikes=look_alikes))

    return router
