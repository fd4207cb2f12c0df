"""The application: routes, middleware, the page, and what is opened and closed with it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio.to_thread
import psycopg
from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from pgembed import __version__
from pgembed.errors import PgembedError
from pgembed.serving.answers import Failure
from pgembed.serving.batching import Batching
from pgembed.serving.database import Database
from pgembed.serving.failures import on_error, on_http, on_invalid
from pgembed.serving.guard import Access, Guard
from pgembed.serving.measured import Measured
from pgembed.serving.metrics import Metrics
from pgembed.serving.models import Models
from pgembed.serving.routes_search import search_routes
from pgembed.serving.routes_status import status_routes
from pgembed.serving.routes_triplets import triplet_routes
from pgembed.serving.site import Site

STATIC = Path(__file__).parent / "static"
_PAGES = {"/": "index.html", "/docs": "docs.html", "/login": "login.html"}
_MOST_AT_WORK = 64
"""Requests of /api: each has a thread, which waits for the model or the database most of the time."""


def make_app(
    conninfo: str,
    *,
    access: Access | None = None,
    provider: str = "cpu",
    threads: int | None = None,
    connections: int = 8,
    batching: Batching | None = None,
) -> ASGIApp:
    """Return the application for one database; what it needs is opened when it starts and closed when it ends."""
    metrics = Metrics()
    site = Site(
        Database(conninfo, connections=connections),
        Models(metrics, provider=provider, threads=threads, batching=batching),
        metrics,
    )

    @asynccontextmanager
    async def opened(_app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = _MOST_AT_WORK + 8
        site.database.open()
        await anyio.to_thread.run_sync(_warm_up, site)
        yield
        site.models.close()
        site.database.close()

    app = FastAPI(
        title="pgembed",
        version=__version__,
        summary="Search over the code in your Postgres, and what stands behind it.",
        lifespan=opened,
        docs_url=None,
        redoc_url=None,
        responses={"4XX": {"model": Failure}, "5XX": {"model": Failure}},
    )
    for routes in (search_routes, triplet_routes, status_routes):
        app.include_router(routes(site))
    _add_pages(app, site)
    for kind in (PgembedError, psycopg.Error):
        app.add_exception_handler(kind, on_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_error)
    # around all of it, not add_middleware: what the framework answers to a surprise is guarded and counted too
    return Guard(Measured(app, metrics, _MOST_AT_WORK), access or Access())


def _warm_up(site: Site) -> None:
    """Begin to load the active generation's model. What stands in the way is told to whoever searches."""
    with suppress(PgembedError, psycopg.Error), site.database.connection() as conn:
        site.models.answering(conn)


def _add_pages(app: FastAPI, site: Site) -> None:
    for path, file in _PAGES.items():
        app.add_api_route(path, _page(file), methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/healthz", tags=["operation"], summary="Whether the server runs; does not ask the database")
    async def _healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", tags=["operation"], summary="Whether the database answers; 503 while it does not")
    def _readyz() -> dict[str, str]:
        with site.database.connection():
            return {"status": "ok"}

    @app.get("/metrics", tags=["operation"], summary="Figures for Prometheus", response_class=Response)
    async def _metrics() -> Response:
        return Response(site.metrics.text(site.database.figures()), media_type="text/plain; version=0.0.4")


def _page(file: str) -> Callable[[], Awaitable[FileResponse]]:
    async def page() -> FileResponse:
        return FileResponse(STATIC / file)

    return page
