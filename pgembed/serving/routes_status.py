"""/api/status, /api/generations, /api/training, /api/evaluations: what there is, and what is at work."""

import threading
import time
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from psycopg.rows import dict_row

from pgembed import __version__
from pgembed.db.sql import query
from pgembed.overview import UNFINISHED, collect
from pgembed.serving.answers import (
    Answering,
    Curve,
    EvaluationRow,
    Evaluations,
    Generations,
    Runs,
    Status,
)
from pgembed.serving.failures import Json, NotFound, NotReady
from pgembed.serving.models import named
from pgembed.serving.site import Number, Site, answer
from pgembed.vectors.generations import active_id, list_generations

_MOST_STEPS = 1000
_STATUS_KEPT_S = 1.0


def status_routes(site: Site) -> APIRouter:
    """Return the routes that only look."""
    router = APIRouter(prefix="/api", tags=["status"])
    status = _Kept(lambda: _status(site))

    @router.get("/status", response_model=Status, summary="What is in the database, and what is happening to it")
    def _() -> Json:
        return answer(status.get())

    @router.get("/generations", response_model=Generations, summary="All generations, with their index's recall")
    def _generations() -> Json:
        with site.database.connection() as conn:
            return answer(Generations(active_id(conn), list_generations(conn)))

    @router.get("/training", response_model=Runs, summary="Training runs, newest first")
    def _training() -> Json:
        return answer(Runs(_rows(site, "serving_runs")))

    @router.get("/training/{run}/curve", response_model=Curve, summary="What a training run measured")
    def _curve(run: Number) -> Json:
        asked = {"run_id": run, "most": _MOST_STEPS}
        with site.database.connection() as conn, conn.cursor(row_factory=dict_row) as cursor:
            if cursor.execute("SELECT FROM pgembed.training_runs WHERE id = %(run_id)s", asked).fetchone() is None:
                raise NotFound(f"There is no training run {run}.", remedy="See /api/training.")
            steps = cursor.execute(query("serving_curve"), asked).fetchall()
            measured = cursor.execute(query("training_evaluations"), asked).fetchall()
        of_step = ("step", "loss", "gradient_norm", "learning_rate", "zero_loss_share", "triplets_per_second")
        return answer(Curve(run, _columns(steps, of_step), _columns(measured, ("step", "loss", "ndcg", "mrr"))))

    @router.get("/evaluations", response_model=Evaluations, summary="Measurements of search, newest first")
    def _evaluations() -> Json:
        return answer(Evaluations([EvaluationRow(**row) for row in _rows(site, "serving_evaluations")]))

    return router


class _Kept:
    """A status for a second, or ten times what it took: many pages that poll cost the database a tenth of its time."""

    def __init__(self, make: Callable[[], Status]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._until = 0.0
        self._found: Status | None = None

    def get(self) -> Status:
        with self._lock:
            started = time.monotonic()
            if self._found is None or started > self._until:
                self._found = None
                self._found = self._make()
                took = time.monotonic() - started
                self._until = started + took + max(_STATUS_KEPT_S, 10 * took)
            return self._found


def _status(site: Site) -> Status:
    with site.database.connection(transaction=False) as conn:
        found = collect(conn)  # in a transaction of its own, that sees one state of the database
    with site.database.connection() as conn, conn.cursor(row_factory=dict_row) as cursor:
        filters = cursor.execute(query("serving_filters"), {}).fetchone() or {}
        try:
            active = named(conn, None)
        except NotReady:
            active = None
    return Status(
        **vars(found),
        version=__version__,
        filling=[one for one in found.generations if one["state"] in UNFINISHED],
        filters=filters,
        answering=None if active is None else Answering(active.id, active.encoder),
        model="none" if active is None else site.models.state(active),
    )


def _rows(site: Site, name: str) -> list[dict[str, Any]]:
    with site.database.connection() as conn, conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query(name), {}).fetchall()


def _columns(rows: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, list[float | None]]:
    return {name: [row[name] for row in rows] for name in names}
