"""What the quickstart has done so far: a small file beside the data, so that the last table also tells of earlier runs.

The database decides what is done; the ledger only remembers how long it took, and how large the first run was made for
this machine, so that the second is as large.
"""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pgembed.cli.quickstart.plan import Plan


@dataclass
class Step:
    """One step of the path: how long it took, over how many of what."""

    seconds: float = 0.0
    amount: int = 0
    unit: str = ""
    rate: float | None = None
    """Units a second; where a step was interrupted, of the work that the last process did."""
    note: str = ""
    skipped: bool = False
    """Whether the run that wrote this found the work done."""
    finished: bool = False


@dataclass
class Ledger:
    """The steps by name, in the order of their first run."""

    path: Path
    plan: Plan | None = None
    steps: dict[str, Step] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> "Ledger":
        """Read the ledger at `path`; a missing or broken one is an empty one (nothing depends on it but a table)."""
        ledger = cls(path)
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, KeyError):
            stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            plan, steps = stored["plan"], {name: Step(**values) for name, values in stored["steps"].items()}
            ledger.plan, ledger.steps = None if plan is None else Plan(**plan), steps
        return ledger

    @contextlib.contextmanager
    def step(self, name: str, unit: str) -> Iterator[Step]:
        """Time a step. The body sets `amount`, `note`, perhaps `rate`, and `skipped` when there was nothing to do.

        The seconds of interrupted tries add up; a run that finds the work done keeps those of the one that did it.
        """
        step = Step(unit=unit)
        before = self.steps.get(name)
        started = time.monotonic()
        try:
            yield step
            step.finished = True
        finally:
            spent = time.monotonic() - started
            if before is not None and not before.finished:
                step.seconds = before.seconds + spent
            elif before is not None and step.skipped:
                step.seconds, step.rate, step.amount = before.seconds, before.rate, before.amount or step.amount
            else:
                step.seconds = spent
            if step.rate is None and step.amount and step.seconds > 0.05 and not step.skipped:
                step.rate = step.amount / step.seconds
            self.steps[name] = step
            self._write()

    @property
    def finished(self) -> list[str]:
        """Names of the steps that a run has come to the end of."""
        return [name for name, step in self.steps.items() if step.finished]

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        stored = {
            "plan": None if self.plan is None else asdict(self.plan),
            "steps": {name: asdict(step) for name, step in self.steps.items()},
        }
        partial.write_text(json.dumps(stored, indent=1), encoding="utf-8")
        partial.replace(self.path)
