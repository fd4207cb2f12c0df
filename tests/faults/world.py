"""The throw-away world: a server, a corpus of real code, a tiny model, and how all was before each station."""

import os
import shutil
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import transformers
from fixtures_encoders import make_tiny_model
from psycopg import sql
from psycopg.conninfo import make_conninfo

from faults.machine import Machine
from faults.nursery import Nursery, Process
from faults.stations import STATIONS, Outcome, Station, differences
from pgembed.db.embedded import ROLE, EmbeddedServer
from pgembed.db.migrations import upgrade

# Three sources, so that an ingest has several commits; of the standard library, for its docstrings and look-alikes.
CORPUS = {
    "one": ("argparse.py", "configparser.py", "textwrap.py", "shlex.py", "csv.py", "json"),
    "two": ("calendar.py", "heapq.py", "bisect.py", "queue.py", "statistics.py", "fractions.py", "collections"),
    "three": ("tarfile.py", "zipfile.py", "gzip.py", "bz2.py", "lzma.py", "mailbox.py", "email"),
}
SMALL_CORPUS = {
    "one": ("textwrap.py", "shlex.py", "json"),
    "two": ("heapq.py", "bisect.py", "queue.py", "statistics.py"),
    "three": ("gzip.py", "bz2.py", "lzma.py"),
}
_TRIAL = "trial"
_WAIT_S = 120.0


class World:
    """To be entered; everything in it lies below one folder and goes with it."""

    def __init__(self, folder: Path, *, small: bool, stations: Sequence[Station] = STATIONS) -> None:
        self.folder, self.home = folder, folder / "home"
        self.is_small = small
        self._last = STATIONS.index(max(stations, key=STATIONS.index))
        self.outcomes: dict[str, Outcome] = {}
        self.durations_s: dict[str, float] = {}
        self.begins_s: dict[str, float] = {}
        """When a command's first session was seen."""

    @contextmanager
    def made(self) -> Iterator["World"]:
        """Build everything, each station by an undisturbed run; take it down at the end."""
        self.folder.chmod(0o755)  # as root the server runs as another user, which must be able to pass
        self.machine = Machine(self.folder)
        environment = {**self.machine.environment, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PGEMBED_DSN": ""}
        self.nursery = Nursery(self.folder, environment)
        # a killed server leaves the operating system with what it wrote: syncing would only take time
        settings = {"shared_buffers": "64MB", "fsync": "off"}
        self.server = EmbeddedServer(self.folder / "server", settings=settings)
        try:
            self.start_server()
            self._lay_out()
            for station in STATIONS[: self._last + 1]:
                self._go_through(station)
            yield self
        finally:
            self.nursery.close()
            self.machine.tell()
            self.server.stop()

    # ------------------------------------------------------------------ what a trial uses

    @property
    def dsn(self) -> str:
        """Connection string of the trial's database."""
        return make_conninfo(host=str(self.server.socket_dir), user=ROLE, dbname=_TRIAL)

    @property
    def sources(self) -> list[str]:
        """Folders of code."""
        return [str(self.folder / "corpus" / name) for name in self._corpus]

    @property
    def model(self) -> Path:
        return self.folder / "tiny"

    def start_server(self) -> None:
        """Start the server, if it does not run, on the machine as its processes are to see it."""
        before = {name: os.environ.get(name) for name in self.machine.environment}
        os.environ.update(self.machine.environment)
        try:
            self.server.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def prepare(self, station: Station) -> None:
        """Make database and files what they were before the station."""
        with self.admin() as conn:
            conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(_TRIAL)))
            self._clone(conn, f"before_{station.name}", _TRIAL)
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(self.folder / "before" / station.name, self.home)

    def start(self, *arguments: str) -> Process:
        """Start a command on the trial's database."""
        return self.nursery.start(*arguments, "--dsn", self.dsn, PGEMBED_HOME=str(self.home))

    @contextmanager
    def admin(self) -> Iterator[psycopg.Connection]:
        """A session beside the trial's database."""
        dsn = make_conninfo(self.dsn, dbname="postgres")
        with psycopg.connect(dsn, autocommit=True) as conn:
            yield conn

    def sessions(self) -> int:
        """Return how many sessions the trial's database has."""
        with self.admin() as conn:
            row = conn.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (_TRIAL,)).fetchone()
            return 0 if row is None else int(row[0])

    def outcome(self, station: Station) -> Outcome:
        """Return what there is now of what the station is to make."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            return station.outcome(conn, self.home)

    # ------------------------------------------------------------------ how it is built

    @property
    def _corpus(self) -> dict[str, tuple[str, ...]]:
        return SMALL_CORPUS if self.is_small else CORPUS

    def _lay_out(self) -> None:
        library = Path(sysconfig.get_paths()["stdlib"])
        for name, members in self._corpus.items():
            for member in members:
                target = self.folder / "corpus" / name / member
                target.parent.mkdir(parents=True, exist_ok=True)
                if (library / member).is_dir():
                    shutil.copytree(library / member, target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy2(library / member, target)
        transformers.utils.logging.disable_progress_bar()
        make_tiny_model(self.model)
        (self.folder / "before" / STATIONS[0].name).mkdir(parents=True)
        with self.admin() as conn:
            conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(f"before_{STATIONS[0].name}")))
        upgrade(make_conninfo(self.dsn, dbname=f"before_{STATIONS[0].name}"))

    def _go_through(self, station: Station) -> None:
        """Run a station undisturbed, keep what it came to and how long it took, and how all is after it.

        Twice, where there is time for it: the first of a kind takes longer, and moments are drawn over the duration.
        """
        for _ in range(1 if self.is_small else 2):
            self._run_undisturbed(station)
        following = STATIONS[STATIONS.index(station) + 1 :]
        if following:
            with self.admin() as conn:
                self._clone(conn, _TRIAL, f"before_{following[0].name}")
            shutil.copytree(self.home, self.folder / "before" / following[0].name)

    def _run_undisturbed(self, station: Station) -> None:
        self.prepare(station)
        process = self.start(*station.command(self))
        self.begins_s[station.name] = 0.0
        while process.poll() is None and not self.begins_s[station.name]:
            if self.sessions():
                self.begins_s[station.name] = time.monotonic() - process.began
            time.sleep(0.002)
        if process.wait(_WAIT_S) != 0:
            raise RuntimeError(f"undisturbed, {station.name} failed: {process.said}")
        self.durations_s[station.name] = process.seconds
        doctor = self.start("doctor", "--strict")
        if doctor.wait(_WAIT_S) != 0:
            raise RuntimeError(f"undisturbed, {station.name} left behind: {doctor.said}")
        outcome = self.outcome(station)
        if differing := differences(outcome, self.outcomes.setdefault(station.name, outcome)):
            raise RuntimeError(f"undisturbed, {station.name} does not do the same twice: {differing}")

    @staticmethod
    def _clone(conn: psycopg.Connection, template: str, name: str) -> None:
        """Copy a database; a session that is just ending is waited for."""
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
            sql.Identifier(name), sql.Identifier(template)
        )
        for _ in range(100):
            try:
                conn.execute(statement)
            except psycopg.errors.ObjectInUse:
                time.sleep(0.05)
            else:
                return
        raise TimeoutError(f"{template} is in use")
