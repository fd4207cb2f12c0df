"""Who runs the embedded server, and what that account may use.

Postgres refuses to run as root. As root the server runs as the system user `pgembed`, which is made if it is missing;
otherwise it runs as the current user. Permissions of folders are never changed to let the account pass: what it cannot
reach is copied, or refused by name.
"""

import os
import pwd
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from pgembed.errors import DatabaseError

SYSTEM_USER = "pgembed"
_CREATION_TRIES = 10


@dataclass(frozen=True)
class Account:
    """The user that runs the server."""

    uid: int
    gid: int

    @property
    def name(self) -> str:
        return user_name(self.uid)

    @property
    def is_other(self) -> bool:
        """Whether it is another user than the one that runs this process."""
        return self.uid != os.geteuid()

    # ------------------------------------------------------------------ processes

    def run(self, program: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a program as this account and return its output; as a shell does, 126 where it cannot be executed.

        Raises:
            DatabaseError: this process may not start programs as the account.
        """
        # Output goes to a file: the postmaster inherits the descriptors, and a pipe would stay open as long as it runs.
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as out,
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as err,
        ):
            try:
                done = subprocess.run(
                    [program, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    cwd="/",
                    user=self.uid if self.is_other else None,
                    group=self.gid if self.is_other else None,
                    extra_groups=[] if self.is_other else None,
                    # not in our group: Ctrl-C in the terminal must reach the command, not the server
                    start_new_session=True,
                    env=_environment(),
                    check=False,
                )
            except OSError as error:
                if (
                    self.is_other and error.filename is None
                ):  # setuid and its like failed; exec's errors name the program
                    raise DatabaseError(
                        f"This process may not start programs as the user '{self.name}': {error.strerror}.",
                        remedy="Postgres refuses to run as root. Run pgembed as an ordinary user, or give the "
                        "container the capabilities SETUID and SETGID.",
                    ) from error
                why = " (its file system is mounted with 'noexec')" if _forbids_programs(program) else ""
                return subprocess.CompletedProcess((), 126, "", f"{program}: {error.strerror}{why}")
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, out.read(), err.read())

    # ------------------------------------------------------------------ files

    def own(self, descriptor: int) -> None:
        """Give an open file or folder to this account."""
        if self.is_other:
            os.fchown(descriptor, self.uid, self.gid)

    def blocked_at(self, path: Path) -> Path | None:
        """Return the first folder above `path` that the account cannot pass, or None. Links are followed as well."""
        folders = {*path.absolute().parents, *path.resolve().parents}
        for folder in sorted(folders, key=lambda each: len(each.parts)):
            try:
                if folder.is_dir() and not self._may(folder, stat.S_IXUSR):
                    return folder
            except FileNotFoundError:
                continue
            except PermissionError:
                return folder.parent
        return None

    def may_read(self, path: Path, *, run: bool = False) -> bool:
        """Whether the bits of a file or folder itself let the account read it, and run or pass it."""
        return self._may(path, stat.S_IRUSR | (stat.S_IXUSR if run else 0))

    def _may(self, path: Path, bits: int) -> bool:
        found = path.stat()
        shift = 0 if found.st_uid == self.uid else 3 if found.st_gid == self.gid else 6
        return found.st_mode & (bits >> shift) == bits >> shift

    def exposed_at(self, path: Path) -> Path | None:
        """Return what of `path` and the folders above it a third user could change, or None."""
        real = path.resolve()
        return next((each for each in (real, *real.parents) if self.is_exposed(each.stat())), None)

    def is_exposed(self, found: os.stat_result) -> bool:
        """Whether a user other than root and this account may write there or exchange what is there."""
        if found.st_uid not in (0, self.uid):
            return True
        # in a folder with the sticky bit, such as /tmp, nobody can exchange what is another's
        if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:
            return False
        by_group = found.st_mode & stat.S_IWGRP and found.st_gid not in (0, self.gid)
        return bool(by_group or found.st_mode & stat.S_IWOTH)


def server_account() -> Account:
    """Return the account that runs the server; as root it is made on first use.

    Raises:
        DatabaseError: it is missing and cannot be made.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    problem = ""
    for _ in range(_CREATION_TRIES):
        try:
            entry = pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            if problem:
                time.sleep(0.2)  # another process may be making it, and holds the lock of the user database
            problem = _make_system_user()
        else:
            return Account(entry.pw_uid, entry.pw_gid)
    raise _no_system_user(problem)


def user_name(uid: int) -> str:
    """Return the name of a user, or its number where the user database has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _make_system_user() -> str:
    """Make the system user; return what useradd has against it."""
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent",
               "--shell", "/usr/sbin/nologin", SYSTEM_USER]  # fmt: skip
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError as error:
        raise _no_system_user(f"useradd: {error.strerror}") from error
    return done.stderr.strip()


def _no_system_user(problem: str) -> DatabaseError:
    return DatabaseError(
        f"Postgres refuses to run as root, and the system user '{SYSTEM_USER}' could not be made: {problem}",
        remedy=f"Run `useradd --system --user-group {SYSTEM_USER}`, or run pgembed as an ordinary user.",
    )


def _environment() -> dict[str, str]:
    # libpq's and the server's variables are about another server: PGPORT, say, would move this one's socket
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("PG") or name.startswith("PGEMBED")
    }
    return {**kept, "LC_ALL": "C.UTF-8"}


def _forbids_programs(program: Path) -> bool:
    return program.exists() and bool(os.statvfs(program).f_flag & os.ST_NOEXEC)
