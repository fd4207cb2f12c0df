"""Environments of their own in any place, and commands run in them as any user: real installations, real processes."""

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

import pgembed
from pgembed.db.sql import resources

IS_ROOT = os.geteuid() == 0
ORDINARY, OTHER = "nobody", "daemon"  # every system has these two
"""Accounts that are not the server's; where the tests do not run as root there is only the current one."""


@dataclass
class Environment:
    """A virtual environment with pgembed and its extra `embedded`."""

    folder: Path
    _libraries: str

    @property
    def site(self) -> Path:
        """Its site-packages."""
        (found,) = (self.folder / "lib").glob("python*/site-packages")
        return found

    def process(
        self, *arguments: str, user: str | int | None = None, umask: int = 0o022, **environment: str
    ) -> "subprocess.Popen[str]":
        """Start `python -m pgembed` as a user, with nothing in its surroundings but the variables that are given."""
        is_other = IS_ROOT and user is not None
        entry = pwd.getpwnam(user) if isinstance(user, str) else None
        return subprocess.Popen(
            [self.folder / "bin" / "python", "-m", "pgembed", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env={"PATH": os.defpath, "LANG": "C.UTF-8", "LD_LIBRARY_PATH": self._libraries, **environment},
            user=(entry.pw_uid if entry else user) if is_other else None,
            group=(entry.pw_gid if entry else user) if is_other else None,
            extra_groups=[] if is_other else None,
            umask=umask,
        )

    def run(
        self, *arguments: str, user: str | int | None = None, umask: int = 0o022, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run `python -m pgembed` to its end."""
        process = self.process(*arguments, user=user, umask=umask, **environment)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


class Places:
    """Makes environments below one folder that everybody can pass."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._base, self._libraries = self._reachable_python()
        self._packages = folder / "packages"
        _copy_distribution("pgembed-code", self._packages, part=".dist-info")
        for name in sorted(_needed_distributions()):
            _copy_distribution(name, self._packages)
        checkout = folder / "checkout"
        shutil.copytree(
            Path(pgembed.__file__).parent, checkout / "pgembed", ignore=shutil.ignore_patterns("__pycache__")
        )
        for name in ("pgembed_code", "sql", "alembic"):
            shutil.copytree(resources() / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        (self._packages / "checkout.pth").write_text(f"{checkout}\n")

    def new_folder(self) -> Path:
        """Return a new folder that everybody can write to."""
        path = self.folder / f"case-{len(list(self.folder.iterdir()))}"
        path.mkdir()
        path.chmod(0o1777)
        return path

    def environment(self, folder: Path) -> Environment:
        """Make one; its files are hard links, so they must not be changed in place."""
        subprocess.run(
            [self._base, "-m", "venv", "--without-pip", folder],
            check=True, env={**os.environ, "LD_LIBRARY_PATH": self._libraries},
        )  # fmt: skip
        made = Environment(folder, self._libraries)
        shutil.copytree(self._packages, made.site, dirs_exist_ok=True, copy_function=os.link)
        return made

    def close(self) -> None:
        """Stop all servers below the folder."""
        for file in self.folder.rglob("postmaster.pid"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(file.read_text().splitlines()[0]), signal.SIGINT)  # which postgres takes as `--mode=fast`
                while file.exists():
                    time.sleep(0.02)

    def _reachable_python(self) -> tuple[Path, str]:
        """Return a Python that every user can run, and where its libraries are: this one, or a copy of it."""
        program = Path(sys.executable).resolve()
        if all(folder.stat().st_mode & 0o001 for folder in program.parents):
            return program, ""
        base = Path(sys.base_prefix)
        copy = self.folder / "python"
        library = Path(sysconfig.get_paths()["stdlib"]).relative_to(base)
        unneeded = shutil.ignore_patterns("site-packages", "__pycache__", "test", "idlelib", "config-*", "*.a")
        shutil.copytree(base / library, copy / library, ignore=unneeded)
        for shared in (base / "lib").glob("libpython*.so*"):
            shutil.copy2(shared, copy / "lib" / shared.name, follow_symlinks=False)
        (copy / "bin").mkdir()
        shutil.copy2(program, copy / "bin" / program.name)
        return copy / "bin" / program.name, str(copy / "lib")


def make_places(folder: Path) -> Iterator[Places]:
    """Yield the places below a new folder, and stop what runs there at the end."""
    folder.mkdir()
    places = Places(folder)
    yield places
    places.close()


def postmaster(home: Path) -> int:
    """Return the process of the server below a PGEMBED_HOME."""
    return int((home / "postgres" / "postmaster.pid").read_text().splitlines()[0])


def _needed_distributions() -> set[str]:
    found: set[str] = set()
    todo = [("pgembed-code", "embedded"), ("pgembed-code", "")]
    while todo:
        name, extra = todo.pop()
        for text in distribution(name).requires or ():
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
                continue
            key = re.sub(r"[-_.]+", "-", requirement.name).lower()
            if key not in found:
                found.add(key)
                todo += [(key, extra) for extra in (*requirement.extras, "")]
    return found


def _copy_distribution(name: str, target: Path, *, part: str = "") -> None:
    """Copy the files of an installed distribution, but its scripts and an older PostgreSQL that is not used."""
    found = distribution(name)
    for file in found.files or ():
        if {"..", "__pycache__", "pginstall", "include"} & set(file.parts) or part not in str(file):
            continue
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(str(found.locate_file(file)), target / file)
