"""What a stage tells about its progress, without knowing who watches.

A stage takes a `Progress`; `cli` hands in one that draws bars or prints lines; tests and scripts leave SILENT.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of long work."""

    def advance(self, amount: int = 1) -> None:
        """Count `amount` more units as done."""

    def note(self, text: str) -> None:
        """Show a short figure beside the rate, such as the current loss."""


class Progress(Protocol):
    """Receives the progress of long work."""

    def task(self, description: str, total: int | None, unit: str) -> AbstractContextManager[Task]:
        """Open a task of `total` units (None: unknown) as a context manager."""

    def say(self, text: str) -> None:
        """Tell a line that stays."""


class _SilentTask:
    def advance(self, amount: int = 1) -> None: ...
    def note(self, text: str) -> None: ...


class _Silent:
    @contextmanager
    def task(self, description: str, total: int | None, unit: str) -> Iterator[Task]:  # noqa: ARG002
        yield _SilentTask()

    def say(self, text: str) -> None: ...


SILENT: Progress = _Silent()
