"""What is done to a command at work. Each strike gives back what it did, in a word; `undo` makes the world whole."""

import contextlib
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass

from faults.nursery import Process
from faults.world import World

Strike = Callable[[World, Process, random.Random], None]


def _kill_client(world: World, process: Process, luck: random.Random) -> None:
    process.kill()


def _kill_server(world: World, process: Process, luck: random.Random) -> None:
    postmaster = int((world.server.data_dir / "postmaster.pid").read_text().splitlines()[0])
    with contextlib.suppress(ProcessLookupError):
        os.kill(postmaster, signal.SIGKILL)


def _cut_connection(world: World, process: Process, luck: random.Random) -> None:
    with world.admin() as conn:
        conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'trial'")


def _fill_disk(world: World, process: Process, luck: random.Random) -> None:
    world.machine.tell(is_full=True)


def _jump_clock(world: World, process: Process, luck: random.Random) -> None:
    world.machine.tell(clock_s=luck.choice((-3600, 3600)))


@dataclass(frozen=True)
class Fault:
    """Something that happens to a command."""

    name: str
    strike: Strike | None
    """None: a second one of the same is started."""
    how: str
    needs_machine: bool = False
    lasts: bool = False
    """Whether it stays so while the command is run again."""


FAULTS = (
    Fault("kill-client", _kill_client, "SIGKILL of the command's process"),
    Fault("kill-server", _kill_server, "SIGKILL of the postmaster; then the server is started and recovers"),
    Fault("cut-connection", _cut_connection, "pg_terminate_backend of every session of the command"),
    Fault(
        "disk-full",
        _fill_disk,
        "no file of the server or the command can grow (ENOSPC, by a preloaded library), until the command has ended",
        needs_machine=True,
    ),
    Fault(
        "clock-jump",
        _jump_clock,
        "the clock of the server and the command is an hour forward or back from then on (by the same library)",
        needs_machine=True,
        lasts=True,
    ),
    Fault("two-at-once", None, "the same command is started a second time while the first is at work"),
)
BY_NAME = {fault.name: fault for fault in FAULTS}
