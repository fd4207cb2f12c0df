"""One trial: a command is struck at a random moment and run again; then all must be as if nothing had been."""

import random
import time
from dataclasses import dataclass

import psycopg

from faults.nursery import Process
from faults.stations import Station, differences
from faults.strikes import Fault
from faults.world import World

_PATIENCE_S = 90.0
_LOCKED_S = 15.0
"""How long the locks of a killed command may keep the next one out: the server looks every two seconds."""
_AT_WORK = ("is at work", "by another process")


@dataclass(frozen=True)
class Trial:
    """What came of one."""

    station: str
    fault: str
    seed: int
    moment_s: float
    """After the start of the command."""
    when: str
    """before its first session, within its work, or after its end."""
    failures: list[str]
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.station} × {self.fault} at {self.moment_s:.2f} s: {'; '.join(self.failures) or 'as undisturbed'}\n"
            f"  again: python -m tests.faults --only {self.station} --fault {self.fault} --trials 1 --seed {self.seed}"
        )


def run_trial(world: World, station: Station, fault: Fault, seed: int) -> Trial:
    """Do it all; whatever is wrong is in the trial's failures."""
    began = time.monotonic()
    luck = random.Random(f"{seed} {station.name} {fault.name}")  # noqa: S311 - chance, not secrecy
    moment_s = luck.uniform(0, world.durations_s[station.name])
    failures: list[str] = []
    when = ""
    world.prepare(station)
    try:
        if fault.strike is None:
            when = _two_at_once(world, station, moment_s, failures)
        else:
            when = _struck(world, station, fault, moment_s, luck, failures)
        if not fault.lasts:
            world.machine.tell()
        world.start_server()
        _again(world, station, failures)
        _sound(world, failures)
        failures += differences(world.outcome(station), world.outcomes[station.name])
    except (TimeoutError, psycopg.Error) as error:
        failures.append(f"{type(error).__name__}: {error}")
        world.machine.tell()
        world.start_server()
    finally:
        world.machine.tell()
    return Trial(station.name, fault.name, seed, moment_s, when, failures, time.monotonic() - began)


def _struck(
    world: World, station: Station, fault: Fault, moment_s: float, luck: random.Random, failures: list[str]
) -> str:
    assert fault.strike is not None
    process = world.start(*station.command(world))
    when = _at(world, station, process, moment_s)
    fault.strike(world, process, luck)
    code = process.wait(_PATIENCE_S)
    if code not in (0, 1) and fault.name != "kill-client":
        failures.append(f"struck, it ended with {code}")
    if code == 1 and (problem := _unclear(process)):
        failures.append(f"struck, {problem}")
    return when


def _two_at_once(world: World, station: Station, moment_s: float, failures: list[str]) -> str:
    """Half of the time together, else the second at the moment."""
    first = world.start(*station.command(world))
    when = "within"
    if moment_s > world.durations_s[station.name] / 2:
        when = _at(world, station, first, moment_s)
    second = world.start(*station.command(world))
    codes = [process.wait(_PATIENCE_S) for process in (first, second)]
    for code, process in zip(codes, (first, second), strict=True):
        if code and not (code == 1 and any(words in process.said for words in _AT_WORK)):
            failures.append(f"of two, one ended with {code} and said: {_last_words(process)}")
    if 0 not in codes:
        failures.append("of two, none came to the end")
    return when


def _at(world: World, station: Station, process: Process, moment_s: float) -> str:
    """Wait for the moment, or the command's end, and say where in the command that is."""
    while process.poll() is None and (left := process.began + moment_s - time.monotonic()) > 0:
        time.sleep(min(left, 0.005))
    if process.poll() is not None:
        return "after"
    return "before" if moment_s < world.begins_s[station.name] else "within"


def _again(world: World, station: Station, failures: list[str]) -> None:
    """Run the same command to its end; one that is told that another is at work waits and tries again."""
    deadline = time.monotonic() + _LOCKED_S
    while True:
        process = world.start(*station.command(world))
        code = process.wait(_PATIENCE_S)
        if code == 0:
            return
        if not any(words in process.said for words in _AT_WORK) or time.monotonic() > deadline:
            failures.append(f"run again, it ended with {code} and said: {_last_words(process)}")
            return
        time.sleep(0.3)


def _sound(world: World, failures: list[str]) -> None:
    doctor = world.start("doctor", "--strict")
    if doctor.wait(_PATIENCE_S) != 0:
        failures.append(f"doctor --strict: {_last_words(doctor)}")


def _unclear(process: Process) -> str:
    """Return what is wrong with how a command told of its failure."""
    if "Traceback" in process.said:
        return f"it said: {_last_words(process)}"
    return "" if "Error: " in process.said else f"it did not say why it failed: {_last_words(process)}"


def _last_words(process: Process) -> str:
    return " / ".join(line.strip() for line in process.said.splitlines()[-6:])
