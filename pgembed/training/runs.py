"""Training runs as rows. Reads and writes `training_runs`, `training_metrics` and `training_evaluations`."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from pgembed import __version__
from pgembed.config import settings
from pgembed.db.sql import query
from pgembed.encoders.folder import folder_spec
from pgembed.encoders.weights import fingerprint_here
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
    """Steps taken; fewer than asked for where it stopped early."""
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
    best_step: int | None = None
    """The step whose weights were taken, where the best were to be."""
    validation: dict[str, Any] | None = None
    """Base against result on validation triplets; None where there are none, or nothing was to be measured."""
    better: bool | None = None
    """Whether the result measured better than the base beyond chance: the whole 95% interval of the difference in
    nDCG@10 lies above zero. None: nothing was measured."""
    alarms: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class StepMetrics:
    """What one step is remembered by."""

    step: int
    loss: float
    gradient_norm: float
    """Before clipping."""
    learning_rate: float
    zero_loss_share: float
    triplets_per_second: float
    anchor_cosine: float | None = None
    """Mean cosine of two of the step's anchors; 1: all are one vector."""
    anchor_deviation: float | None = None
    update_ratio: float | None = None
    """Norm of the change of the weights, by the norm of the weights."""


@dataclass(frozen=True)
class ValidationMetrics:
    """What the model that a step would deliver does on validation triplets. Step 0: the base."""

    step: int
    queries: int
    documents: int
    loss: float | None
    """None: it was not finite."""
    ndcg: float
    """Mean nDCG@10."""
    mrr: float
    query_ndcg: list[float]
    """Of each query, in an order that all steps of a run share."""
    query_mrr: list[float]
    seconds: float


@dataclass(frozen=True)
class Told:
    """Everything that makes a run this one and no other."""

    options: TrainingOptions
    precision: str
    data: DataSummary
    validation_fingerprint: str | None
    base_encoder_id: int

    def to_row(self) -> dict[str, Any]:
        """Return the columns of `training_runs`."""
        return {
            "view": self.options.view,
            "filters": Jsonb(self.options.filters()),
            "seed": self.options.seed,
            "hyperparameters": Jsonb({**self.options.hyperparameters(), "precision": self.precision}),
            "data_fingerprint": self.data.fingerprint,
            "validation_fingerprint": self.validation_fingerprint,
            "base_encoder_id": self.base_encoder_id,
        }


def find_run(conn: psycopg.Connection, told: Told) -> int | TrainingResult | None:
    """Return the newest run that was told exactly this: its result if it is finished, else its id."""
    row = conn.execute(query("find_training_run"), told.to_row()).fetchone()
    if row is None:
        return None
    run_id, state, checkpoint, metrics = row
    if state != "finished":
        return int(run_id)
    # a finished run whose folder is gone is of no use to anyone: a new one is made
    if not Path(checkpoint).is_dir():
        return None
    return replace(TrainingResult(**{**metrics, "checkpoint": Path(checkpoint)}), already_done=True)


def insert_run(conn: psycopg.Connection, told: Told, code_revision: str | None) -> int:
    """Make a new run's row and return its id."""
    values = {**told.to_row(), "package_version": __version__, "code_revision": code_revision}
    row = conn.execute(query("insert_training_run"), values).fetchone()
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


def stored_metrics(conn: psycopg.Connection, run_id: int) -> list[StepMetrics]:
    """Return the metrics of a run's steps, in order."""
    with conn.cursor(row_factory=class_row(StepMetrics)) as cursor:
        return cursor.execute(query("training_steps"), {"run_id": run_id}).fetchall()


def store_validation(conn: psycopg.Connection, run_id: int, validation: ValidationMetrics) -> None:
    """Write one validation."""
    conn.execute(query("insert_training_evaluation"), {"run_id": run_id, **asdict(validation)})


def stored_validations(conn: psycopg.Connection, run_id: int) -> list[ValidationMetrics]:
    """Return a run's validations, in the order of their steps."""
    with conn.cursor(row_factory=class_row(ValidationMetrics)) as cursor:
        return cursor.execute(query("training_evaluations"), {"run_id": run_id}).fetchall()


def forget_metrics(conn: psycopg.Connection, run_id: int, *, after: int) -> None:
    """Remove metrics and validations of steps that a resumed run will take again."""
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
        TrainingError: there is none, or its folder is not on this machine, or not what was trained.
    """
    row = conn.execute(query("finished_training_run"), {"run_id": run_id}).fetchone()
    if row is None:
        which = "no finished training run" if run_id is None else f"no finished training run {run_id}"
        raise TrainingError(f"There is {which}.", remedy="Run `pgembed train`; `pgembed status` lists runs.")
    folder = Path(row[1])
    if not folder.is_dir():
        raise TrainingError(f"The checkpoint of run {row[0]} is not here: {folder}", remedy="Train again.")
    if row[2] is not None and fingerprint_here(folder_spec(folder)) != row[2]:
        raise TrainingError(
            f"The checkpoint of run {row[0]} is not what was trained: a file in {folder} has changed.",
            remedy="Bring it back from a copy, or train again.",
        )
    return int(row[0]), folder
