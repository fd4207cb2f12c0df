"""What `pgembed doctor --strict` holds the files on this machine to: checkpoints, exported encoders, no leftovers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from pgembed.config import settings
from pgembed.db.preflight import Problem
from pgembed.db.sql import query
from pgembed.encoders.artefact import load_manifest
from pgembed.encoders.folder import folder_spec
from pgembed.encoders.half_written import left_behind
from pgembed.encoders.weights import fingerprint_here
from pgembed.errors import PgembedError

Connection = psycopg.Connection[Any]

_HALF_WRITTEN = (".step-??????-*", ".best-??????-*", ".final-*")
"""Of a checkpoint: the run's lock says whose; what is begun for an exported encoder says it by its name."""


def broken_files(conn: Connection) -> Iterator[Problem]:
    """Yield what is wrong with the files that rows name, by their hashes, and what interrupted commands left."""
    yield from _checkpoints(conn)
    yield from _artefacts(conn)
    yield from _leftovers()


def _checkpoints(conn: Connection) -> Iterator[Problem]:
    for run_id, place, wanted in conn.execute(query("finished_runs")).fetchall():
        folder = Path(place)
        remedy = "Copy the folder here, or train again: pgembed train"
        if not folder.is_dir():
            yield Problem(f"The checkpoint of training run {run_id} is not on this machine: {folder}", remedy)
            continue
        try:
            found = fingerprint_here(folder_spec(folder))
        except (PgembedError, OSError) as error:
            yield Problem(f"The checkpoint of training run {run_id} cannot be read: {error}", remedy)
            continue
        if found != wanted:
            yield Problem(f"The checkpoint of training run {run_id} is not what was trained: {folder}", remedy)
        left = [path.name for pattern in ("step-??????", "best-??????") for path in folder.parent.glob(pattern)]
        if left:
            yield Problem(
                f"Training run {run_id} is finished and has kept {', '.join(sorted(left)[:3])} in {folder.parent}.",
                "Nothing goes on from these: remove them.",
            )


def _artefacts(conn: Connection) -> Iterator[Problem]:
    """Of every finished generation but the active one, which the usual checks look at."""
    for generation_id, state, _, place, onnx_sha256, wanted, _ in conn.execute(
        query("finished_generations"), {}
    ).fetchall():
        try:
            manifest = load_manifest(Path(place))
        except PgembedError as error:
            if state != "active":
                yield Problem(
                    f"The model of generation {generation_id} ({state}) is not as it was exported: {error.message}",
                    f"Export the encoder again, or drop the generation: pgembed generations prune {generation_id}",
                )
            continue
        if manifest.fingerprint != wanted or (state != "active" and manifest.onnx_sha256 != onnx_sha256):
            yield Problem(
                f"{place} holds another model than the one that filled generation {generation_id} ({state}).",
                "Export that encoder again to this folder, or reindex with the one that is there.",
            )


def _leftovers() -> Iterator[Problem]:
    """What a killed command had begun to write."""
    models, checkpoints = settings().models_dir, settings().checkpoints_dir
    found = left_behind(models)
    found += [path for pattern in _HALF_WRITTEN for path in checkpoints.glob(f"*/{pattern}")]
    for path in sorted(found):
        yield Problem(
            f"{path} was half written, and the command that did is gone, or still at work.",
            "The same command again removes it; or do that by hand, when none is at work.",
        )
