"""What a run writes down while it goes: rows, events for TensorBoard, and the watch over both. The first process alone.

Writes `training_metrics` and `training_evaluations`.
"""

from pathlib import Path

import psycopg

from pgembed.training.board import Board
from pgembed.training.options import TrainingOptions
from pgembed.training.runs import (
    StepMetrics,
    ValidationMetrics,
    forget_metrics,
    store_metrics,
    store_validation,
    stored_metrics,
    stored_validations,
)
from pgembed.training.watch import Alarm, Watch


class Journal:
    """One run's; without a connection it keeps nothing."""

    def __init__(
        self, conn: psycopg.Connection | None, run_id: int, options: TrainingOptions, events: Path | None = None
    ) -> None:
        """`events` is the run's folder for TensorBoard."""
        self._conn, self._run_id, self._events = conn, run_id, events
        self._board: Board | None = None
        self._pending: list[StepMetrics] = []
        self.watch = Watch(options)

    def open(self, *, after: int) -> None:
        """Begin where a run goes on after `after` steps: what was written of later ones is forgotten."""
        if self._conn is None:
            return
        # before the first step nothing is known, not even what a killed process measured of the base
        forget_metrics(self._conn, self._run_id, after=after or -1)
        known = stored_metrics(self._conn, self._run_id)
        for metrics in known:
            self.watch.observe(metrics)
        if self._events is not None:
            self._board = Board(self._events, known, stored_validations(self._conn, self._run_id))

    def step(self, metrics: StepMetrics) -> list[Alarm]:
        """Note a step, to be written with others; return the alarms that it raises."""
        self._pending.append(metrics)
        return self.watch.observe(metrics)

    def write(self) -> None:
        """Write the steps that were noted."""
        if self._conn is not None:
            store_metrics(self._conn, self._run_id, self._pending)
        if self._board is not None:
            for metrics in self._pending:
                self._board.add_step(metrics)
            self._board.flush()
        self._pending = []

    def validation(self, found: ValidationMetrics) -> None:
        """Write a validation."""
        if self._conn is not None:
            store_validation(self._conn, self._run_id, found)
        if self._board is not None:
            self._board.add_validation(found)

    def close(self) -> None:
        """End the events' file."""
        if self._board is not None:
            self._board.close()
