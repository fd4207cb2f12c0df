"""What came of the trials, as a table in Markdown."""

from collections.abc import Sequence

from faults.stations import STATIONS
from faults.strikes import FAULTS
from faults.trials import Trial

_HEAD = ("command", "fault", "trials", "before", "within", "after", "as undisturbed", "failed")


def table(trials: Sequence[Trial]) -> str:
    """Return a row for each command and fault that was tried."""
    rows = [_HEAD, tuple("---" for _ in _HEAD)]
    for station in STATIONS:
        for fault in FAULTS:
            those = [trial for trial in trials if (trial.station, trial.fault) == (station.name, fault.name)]
            if those:
                when = [sum(trial.when == moment for trial in those) for moment in ("before", "within", "after")]
                failed = sum(bool(trial.failures) for trial in those)
                cells = (len(those), *when, len(those) - failed, failed)
                rows.append((station.name, fault.name, *map(str, cells)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def legend() -> str:
    """Return how each fault is brought about."""
    return "\n".join(f"{fault.name}: {fault.how}." for fault in FAULTS)
