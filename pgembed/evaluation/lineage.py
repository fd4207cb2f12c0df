"""Where an encoder came from, and how its generation's index was calibrated: what a report tells beside the figures.

Reads `encoders`, `training_lineage`, `training_metrics`, `training_evaluations`, `generations`.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

from pgembed.db.sql import query

Connection = psycopg.Connection[Any]

_GENERATIONS_BACK = 20  # a chain of runs is followed so far


@dataclass(frozen=True)
class Run:
    """A training run that made an encoder of another one."""

    run_id: int
    view: str
    filters: dict[str, Any]
    seed: int
    data_fingerprint: str
    base: str
    base_fingerprint: str
    hyperparameters: dict[str, Any]
    package_version: str
    code_revision: str | None
    tuned: str
    tuned_fingerprint: str
    last_loss: float | None
    better: bool | None
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True)
class Curve:
    """What was recorded while a run trained."""

    losses: list[tuple[int, float]]
    """(step, loss)"""
    validations: list[tuple[int, float]]
    """(step, nDCG@10 on validation triplets)"""


@dataclass(frozen=True)
class Lineage:
    """An encoder, and the runs that led to it, the last one first; none where it was never trained here."""

    encoder: str
    fingerprint: str
    licence: str
    runs: list[Run]
    curve: Curve | None
    """Of the last run."""


@dataclass(frozen=True)
class IndexState:
    """A generation's index as it is now."""

    id: int
    state: str
    index_method: str
    lists: int | None
    probes: int | None
    index_recall: float | None
    row_count: int | None
    calibration: dict[str, Any] | None
    """k, queries, target, and recall: [[effort, recall], …]; None where the calibration did not keep them."""

    @property
    def effort(self) -> str:
        """What a search does, such as "15 of 88 lists"."""
        if self.index_method == "ivfflat":
            return f"{self.probes} of {self.lists} lists"
        return f"{'ef_search' if self.index_method == 'hnsw' else 'candidates'} {self.probes}"


def read_lineage(conn: Connection, encoder_id: int | None) -> Lineage | None:
    """Return where an encoder came from; None for words alone."""
    row = conn.execute(query("encoder_identity"), {"id": encoder_id}).fetchone()
    if row is None:
        return None
    name, fingerprint, licence = row
    runs: list[Run] = []
    wanted, seen = fingerprint, set[str]()
    while wanted not in seen and len(runs) < _GENERATIONS_BACK:
        seen.add(wanted)
        with conn.cursor(row_factory=class_row(Run)) as cursor:
            run = cursor.execute(query("encoder_lineage"), {"fingerprint": wanted}).fetchone()
        if run is None:
            break
        runs.append(run)
        wanted = run.base_fingerprint
    return Lineage(name, fingerprint, licence, runs, _curve(conn, runs[0].run_id) if runs else None)


def read_index(conn: Connection, generation_id: int) -> IndexState | None:
    """Return the index of a generation; None where there is no such generation."""
    with conn.cursor(row_factory=class_row(IndexState)) as cursor:
        return cursor.execute(query("report_generation"), {"id": generation_id}).fetchone()


def _curve(conn: Connection, run_id: int) -> Curve:
    losses = conn.execute(query("report_losses"), {"run_id": run_id}).fetchall()
    validations = conn.execute(query("report_validations"), {"run_id": run_id}).fetchall()
    return Curve([(int(s), float(v)) for s, v in losses], [(int(s), float(v)) for s, v in validations])
