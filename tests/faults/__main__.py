"""Run the fault suite and print what came of it; exit code 1 when a trial failed.

python -m tests.faults --trials 5
python -m tests.faults --only train,reindex --fault kill-client --trials 30 --seed 7
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.stations import BY_NAME as STATIONS
from faults.strikes import BY_NAME as FAULTS
from faults.table import legend, table
from faults.trials import Trial, run_trial
from faults.world import World


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=1, metavar="N", help="of each command and fault (default: 1)")
    parser.add_argument("--only", default=",".join(STATIONS), metavar="COMMAND,…", help="default: %(default)s")
    parser.add_argument("--fault", default=",".join(FAULTS), metavar="FAULT,…", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the first trial (default: 0)")
    parser.add_argument("--small", action="store_true", help="a smaller corpus, as in CI")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every trial there as well")
    told = parser.parse_args()
    stations = [STATIONS[name] for name in _known(parser, told.only, STATIONS)]
    faults = [FAULTS[name] for name in _known(parser, told.fault, FAULTS)]
    # a shell's background job ignores one and would leave the server behind at the other
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    trials: list[Trial] = []
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="pgembed-faults-", ignore_cleanup_errors=True) as folder,
        World(Path(folder), small=told.small, stations=stations).made() as world,
    ):
        took = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in world.durations_s.items())
        print(f"Undisturbed: {took}", flush=True)
        for number in range(told.trials):
            for station in stations:
                for fault in faults:
                    if fault.needs_machine and not world.machine.works:
                        continue
                    trial = run_trial(world, station, fault, told.seed + number)
                    trials.append(trial)
                    print("." if not trial.failures else f"\n{trial}", end="\n" if trial.failures else "", flush=True)
        without = "" if world.machine.works else " No C compiler: no disk was full and no clock jumped."
    failed = [trial for trial in trials if trial.failures]
    print(f"\n{table(trials)}\n\n{legend()}\n")
    print(f"{len(trials)} trials in {time.monotonic() - began:.0f} s, {len(failed)} failed.{without}")
    if told.json is not None:
        told.json.write_text(json.dumps([asdict(trial) for trial in trials], indent=1))
    return 1 if failed else 0


def _known(parser: argparse.ArgumentParser, given: str, known: dict[str, object]) -> list[str]:
    names = [name for name in given.split(",") if name]
    if unknown := [name for name in names if name not in known]:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
