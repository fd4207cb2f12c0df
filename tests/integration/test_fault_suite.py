"""The short form of the fault suite: each command struck once by each fault, at a moment drawn from a fixed seed.

The long one is `python -m tests.faults --trials 5`; `PGEMBED_TEST_TRIALS=5` does as many here.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.stations import STATIONS, Station
from faults.strikes import FAULTS, Fault
from faults.trials import run_trial
from faults.world import World

TRIALS = int(os.environ.get("PGEMBED_TEST_TRIALS", "1"))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with (
        tempfile.TemporaryDirectory(prefix="pgembed-faults-", ignore_cleanup_errors=True) as folder,
        World(Path(folder), small=True).made() as made,
    ):
        yield made


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("station", STATIONS, ids=lambda station: station.name)
@pytest.mark.parametrize("seed", range(TRIALS))
def test_struck_and_run_again_all_is_as_undisturbed(world: World, station: Station, fault: Fault, seed: int) -> None:
    if fault.needs_machine and not world.machine.works:
        pytest.skip("there is no C compiler: the library that this fault is made by cannot be built")
    trial = run_trial(world, station, fault, seed)
    assert not trial.failures, str(trial)
