"""Training runs as rows. Reads and writes `training_runs` and `training_metrics`."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from pgembed import __version__
from pgembed.config import settings
from pgembed.db.sql import query
from pgembed.errors import TrainingError
from pgembed.training.data import DataSummary
from pgembed.training.options import TrainingOptions


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to."""

    run_id: int
    checkpoint: Path
    """Folder of the trained encoder, to be exported."""
    steps: int
    triplets: int
    """Triplets seen, repeats counted."""
    available: int
    """Triplets that the view gives."""
    first_loss: float | None
    """Mean of the first ten steps."""
    last_loss: float | None
    """Mean of the last ten steps."""
    skipped_steps: int
    seconds: float
    """Of the process that finished the run; an interrupted one's are not in it."""
    precision: str
    already_done: bool = False


@dataclass(frozen=True)
class StepMetrics:
    """What one step is remembered by."""

    step: int
    loss: float
    gradient_norm: float
    learning_rate: float
    zero_loss_share: float
    triplets_per_second: float


def find_run(
    conn: psycopg.Connection, options: TrainingOptions, precision: str, data: DataSummary, base_encoder_id: int
) -> int | TrainingResult | None:
    """Return the newest run that was told exactly this: its result if it is finished, else its id."""
    row = conn.execute(query("find_training_run"), _told(options, precision, data, base_encoder_id)).fetchone()
    if row is None:
        return None
    run_id, state, checkpoint, metrics = row
    if state != "finished":
        return int(run_id)
    # a finished run whose folder is gone is of no use to anyone: a new one is made
    if not Path(checkpoint).is_dir():
        return None
    return replace(TrainingResult(**{**metrics, "checkpoint": Path(checkpoint)}), already_done=True)


def insert_run(
    conn: psycopg.Connection, options: TrainingOptions, precision: str, data: DataSummary, base_encoder_id: int
) -> int:
    """Make a new run's row and return its id."""
    told = _told(options, precision, data, base_encoder_id)
    row = conn.execute(query("insert_training_run"), {**told, "package_version": __version__}).fetchone()
    assert row is not None  # noqa: S101 - INSERT … RETURNING gives a row
    return int(row[0])


@contextmanager
def running(conn: psycopg.Connection, run_id: int) -> Iterator[Path]:
    """Hold a run for this process alone and give its folder; note a failure in its row.

    Raises:
        TrainingError: another process holds it.
    """
    if conn.execute(query("training_try_lock"), {"run_id": run_id}).fetchone() != (True,):
        raise TrainingError(f"Run {run_id} is being trained by another process.", remedy="Wait for it, or use --fresh.")
    try:
        row = conn.execute(query("restart_training_run"), {"run_id": run_id}).fetchone()
        assert row is not None  # noqa: S101 - the row is there: its id was just read
        # two databases can both have a run 1; when it began tells them apart
        began = hashlib.sha256(row[0].isoformat().encode()).hexdigest()[:8]
        yield settings().checkpoints_dir / f"run-{run_id}-{began}"
    except TrainingError as error:
        conn.execute(query("fail_training_run"), {"run_id": run_id, "error": error.message})
        raise
    finally:
        with suppress(psycopg.Error):  # a lost connection has lost its locks
            conn.execute(query("training_unlock"), {"run_id": run_id})


def store_metrics(conn: psycopg.Connection, run_id: int, metrics: list[StepMetrics]) -> None:
    """Write the metrics of some steps."""
    with conn.transaction(), conn.cursor() as cursor:
        cursor.executemany(query("insert_training_metric"), [{"run_id": run_id, **asdict(m)} for m in metrics])


def forget_metrics(conn: psycopg.Connection, run_id: int, *, after: int) -> None:
    """Remove the metrics of steps that a resumed run will take again."""
    conn.execute(query("forget_training_metrics"), {"run_id": run_id, "step": after})


def first_and_last_loss(conn: psycopg.Connection, run_id: int) -> tuple[float | None, float | None]:
    """Return the mean loss of the first ten and of the last ten steps, null where no step counted."""
    row = conn.execute(query("training_losses"), {"run_id": run_id}).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM gives one row
    return row[0], row[1]


def finish_run(conn: psycopg.Connection, result: TrainingResult, encoder_id: int) -> None:
    """Mark a run as finished and note its result."""
    metrics = {name: value for name, value in vars(result).items() if name not in ("checkpoint", "already_done")}
    conn.execute(
        query("finish_training_run"),
        {
            "run_id": result.run_id,
            "encoder_id": encoder_id,
            "checkpoint_path": str(result.checkpoint),
            "metrics": Jsonb(metrics),
        },
    )


def finished_checkpoint(conn: psycopg.Connection, run_id: int | None = None) -> tuple[int, Path]:
    """Return id and folder of a finished run, the newest if none is named.

    Raises:
        TrainingError: there is none, or its folder is not on this machine.
    """
    row = conn.execute(query("finished_training_run"), {"run_id": run_id}).fetchone()
    if row is None:
        which = "no finished training run" if run_id is None else f"no finished training run {run_id}"
        raise TrainingError(f"There is {which}.", remedy="Run `pgembed train`; `pgembed status` lists runs.")
    folder = Path(row[1])
    if not folder.is_dir():
        raise TrainingError(f"The checkpoint of run {row[0]} is not here: {folder}", remedy="Train again.")
    return int(row[0]), folder


def _told(options: TrainingOptions, precision: str, data: DataSummary, base_encoder_id: int) -> dict[str, Any]:
    return {
        "view": options.view,
        "filters": Jsonb(options.filters()),
        "seed": options.seed,
        "hyperparameters": Jsonb({**options.hyperparameters(), "precision": precision}),
        "data_fingerprint": data.fingerprint,
        "base_encoder_id": base_encoder_id,
    }
