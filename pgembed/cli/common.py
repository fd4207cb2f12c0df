"""What the commands share: options, connections, progress and output."""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.progress import Task as RichTask
from rich.text import Text

from pgembed.errors import ConfigurationError
from pgembed.progress import Progress, Task

if TYPE_CHECKING:
    import psycopg

    from pgembed.db.connection import Access

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

DsnOption = Annotated[
    str | None,
    typer.Option(
        "--dsn",
        metavar="DSN",
        help="Database: a libpq or SQLAlchemy connection string. Default: PGEMBED_DSN, else the embedded server.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]

_PLAIN_INTERVAL_S = 5.0
_PIPE_WIDTH = 250


def connection(dsn: str | None, *, vectors: bool = False, access: "Access" = "read") -> "psycopg.Connection":
    """Open a connection to a database whose schema is the one this package was written for; see `connect`."""
    from pgembed.db.connection import connect, register_vectors
    from pgembed.db.migrations import require_current

    opened = connect(dsn, access=access)
    try:
        require_current(opened)
        if vectors:
            register_vectors(opened)
    except BaseException:
        opened.close()
        raise
    return opened


def require_folder_of(file: Path) -> None:
    """Say before the work that its result could not be written.

    Raises:
        ConfigurationError: there is no folder that `file` could stand in, or it is a folder itself.
    """
    if file.expanduser().is_dir():
        raise ConfigurationError(f"{file} cannot be written: it is a folder.", remedy="Name a file.")
    if not file.expanduser().absolute().parent.is_dir():
        raise ConfigurationError(
            f"{file} cannot be written: there is no folder {file.parent}.", remedy="Make it first."
        )


def print_json(value: Any, *, on_one_line: bool = False) -> None:
    """Print `value` as one JSON document."""
    indent = None if on_one_line else 2
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=_plain)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # a locale without these characters, or a file name that is not UTF-8
        text = json.dumps(value, indent=indent, default=_plain)
    sys.stdout.write(text + "\n")


def print_table(part: RenderableType) -> None:
    """Print a table; what goes into a file or a pipe is not squeezed into the width of a terminal that is not there."""
    if console.is_terminal:
        console.print(part)
    else:
        Console(file=console.file, highlight=False, soft_wrap=True, width=max(console.width, _PIPE_WIDTH)).print(part)


def show_progress() -> Progress:
    """Return bars where a person watches (standard error is a terminal), plain lines elsewhere."""
    return _Bars() if errors.is_terminal else _Lines()


def printable(text: str) -> str:
    """Return `text` with control and bidirectional characters escaped: what a terminal would obey is shown instead."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode("ascii") for c in text)


def seconds(value: float) -> str:
    """Return a duration as a person says it: 0.8 s, 12 s, 3 min 05 s."""
    if value < 10:
        return f"{value:.1f} s"
    if value < 60:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"


def as_option(precision: str) -> str:
    """Return an artefact's precision (float32) as `pgembed export --precision` calls it (fp32)."""
    return {"float32": "fp32", "float16": "fp16"}.get(precision, precision)


def _rate(value: float, unit: str) -> str:
    # training does less than one step a second on a processor
    return f"{value:,.1f} {unit}/s" if value < 10 else f"{value:,.0f} {unit}/s"


def program() -> str:
    """Return how this program can be called from where the user stands: `pgembed`, or the path where PATH has none."""
    if shutil.which("pgembed"):
        return "pgembed"
    called = Path(sys.argv[0])
    return str(called) if called.name == "pgembed" else f"{sys.executable} -m pgembed"


def processors() -> int:
    """Return the processors that this process may use: in a container fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _plain(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):  # a NumPy scalar
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON")


class _RateColumn(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: RichTask) -> Text:
        speed = task.finished_speed or task.speed
        return Text(_rate(speed, task.fields["unit"]) if speed else "", style="dim")


class _Bars:
    """Progress on a terminal."""

    @contextmanager
    def task(self, description: str, total: int | None, unit: str) -> Iterator[Task]:
        with RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _RateColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=errors,
            transient=True,
        ) as bars:
            identity = bars.add_task(printable(description), total=total, unit=unit, note="")

            class Bar:
                def advance(self, amount: int = 1) -> None:
                    bars.advance(identity, amount)

                def note(self, text: str) -> None:
                    bars.update(identity, note=printable(text))

            yield Bar()

    def say(self, text: str) -> None:
        errors.print(printable(text), markup=False)


class _Lines:
    """Progress into a log: a line every few seconds, with the rate and the time that remains."""

    @contextmanager
    def task(self, description: str, total: int | None, unit: str) -> Iterator[Task]:
        started = last = time.monotonic()
        done = told = 0
        noted = ""

        def line(now: float) -> str:
            rate = done / max(now - started, 1e-9)
            parts = [f"{done:,}" + (f" of {total:,}" if total else "") + f" {unit}", _rate(rate, unit)]
            if total and 0 < done < total:
                parts.append(f"{seconds((total - done) / rate)} left")
            return printable(f"{description}: " + ", ".join([*parts, noted] if noted else parts))

        class Line:
            def advance(self, amount: int = 1) -> None:
                nonlocal done, told, last
                done += amount
                now = time.monotonic()
                if now - last >= _PLAIN_INTERVAL_S:
                    last, told = now, done
                    errors.print(line(now), markup=False)

            def note(self, text: str) -> None:
                nonlocal noted
                noted = text

        yield Line()
        if done and done != told:
            errors.print(line(time.monotonic()), markup=False)

    def say(self, text: str) -> None:
        errors.print(printable(text), markup=False)
