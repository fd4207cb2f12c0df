"""Reindex on a Ray cluster: the same workers as everywhere, as actors; the database is all that they share.

Each actor runs `reindex` on its own node with its own copy of the artefact, at the same path. An actor that dies costs
nothing: its ranges are free, and the others, or one that is started in its place, take them over.
"""

import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pgembed.db.connection import connect
from pgembed.db.dsn import resolve
from pgembed.errors import GenerationError, MissingExtra
from pgembed.progress import SILENT, Progress
from pgembed.vectors.reindex import ReindexResult, reindex

MOST_DEATHS = 3  # of actors, for each that was asked for
_POLL_S = 1.0


@dataclass
class _Fleet:
    """Actors and what they are doing: task → actor."""

    ray: Any
    actor: Any
    arguments: tuple[str, str, dict[str, Any]]
    running: dict[Any, Any]
    deaths: int = 0

    def start(self) -> None:
        worker = self.actor.remote()
        self.running[worker.run.remote(*self.arguments)] = worker


def reindex_on_ray(
    dsn: str | None,
    artefact: Path,
    *,
    workers: int,
    address: str | None = None,
    cpus: int = 1,
    progress: Progress = SILENT,
    **options: Any,
) -> ReindexResult:
    """Reindex with `workers` actors of `cpus` processors each on the cluster at `address`, Ray's own choice by default.

    `options` are those of `reindex`. The database must be one that every node reaches.

    Raises:
        MissingExtra: Ray is not installed.
        GenerationError: no cluster can be reached, it has too few processors, or actors keep dying.
        PgembedError: what `reindex` raises, from whichever actor.
    """
    ray = _import_ray()
    conninfo = resolve(dsn)
    with connect(conninfo, access="session"):
        pass  # a database that cannot be reached is told here, not from each node
    began_here = not ray.is_initialized()
    try:
        if began_here:
            ray.init(address=address or "auto", logging_level="warning", log_to_driver=False, namespace="pgembed")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise GenerationError(
            f"No Ray cluster can be reached{f' at {address}' if address else ''}: {error}",
            remedy="Start one: ray start --head; or name one by --ray-address.",
        ) from error
    try:
        there = int(ray.cluster_resources().get("CPU", 0))
        if there < workers * cpus:
            raise GenerationError(
                f"The cluster has {there} processors; {workers} workers of {cpus} need {workers * cpus}.",
                remedy="Ask for fewer by --workers, or add nodes.",
            )
        actor = ray.remote(num_cpus=cpus, max_restarts=0)(_Worker)
        fleet = _Fleet(ray, actor, (conninfo, str(artefact), options), {})
        for _ in range(workers):
            fleet.start()
        progress.say(f"{workers} workers on a cluster of {len(ray.nodes())} nodes and {there} processors.")
        return _wait(fleet, workers, progress)
    finally:
        if began_here:
            ray.shutdown()


class _Worker:
    """What runs on a node."""

    def run(self, dsn: str, artefact: str, options: dict[str, Any]) -> dict[str, Any]:
        """Reindex, and return the result's fields."""
        if not Path(artefact).is_dir():
            raise GenerationError(
                f"The encoder {artefact} is not on the node {_node_name()}.",
                remedy="Copy the folder to the same path on every node.",
            )
        result = reindex(dsn, Path(artefact), **options)
        return {field.name: getattr(result, field.name) for field in fields(result)}


def _wait(fleet: _Fleet, workers: int, progress: Progress) -> ReindexResult:
    """Wait for all actors, putting another in the place of each that dies; return the sum of what they did."""
    ray = fleet.ray
    results: list[ReindexResult] = []
    began = time.perf_counter()
    while fleet.running:
        done, _ = ray.wait(list(fleet.running), num_returns=1, timeout=_POLL_S)
        for task in done:
            del fleet.running[task]
            try:
                results.append(ReindexResult(**ray.get(task)))
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, Exception) else error from None
            except ray.exceptions.RayActorError as error:
                fleet.deaths += 1
                if fleet.deaths > MOST_DEATHS * workers:
                    raise GenerationError(
                        f"Workers have died {fleet.deaths} times, last: {str(error).splitlines()[0]}",
                        remedy="Look at Ray's logs of the node; what was embedded is kept.",
                    ) from error
                progress.say("A worker died; another takes its place.")
                fleet.start()
    return _sum(results, time.perf_counter() - began)


def _sum(results: list[ReindexResult], seconds: float) -> ReindexResult:
    from dataclasses import replace

    return replace(
        results[-1],
        embedded=sum(result.embedded for result in results),
        embedding_seconds=max(result.embedding_seconds for result in results),
        index_seconds=max(result.index_seconds for result in results),
        seconds=seconds,
    )


def _node_name() -> str:
    import platform

    return platform.node()


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "reindex --engine ray", str(error)) from error
    return ray
