"""Folders that are written beside the place that they are for. Their names say by whom: so what a process that was
killed has left is known from what another one is writing, on this host or, where hosts share a disk, on another."""

import os
import re
import socket
import tempfile
from pathlib import Path


def begin_folder(place: Path) -> Path:
    """Make an empty folder beside `place`, to be filled and renamed to it; only this user may look into it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f".{place.name}-{_host()}-{os.getpid()}-", dir=place.parent))


def left_behind(parent: Path, name: str | None = None) -> list[Path]:
    """Return the half-written folders in `parent` whose process on this host is gone; with `name`, those for it."""
    whose = ".+" if name is None else re.escape(name)
    pattern = re.compile(rf"\.{whose}-{re.escape(_host())}-(\d+)-\w{{8}}")
    found = ((path, pattern.fullmatch(path.name)) for path in parent.glob(".*-*"))
    return sorted(path for path, match in found if match and not _is_alive(int(match[1])))


def _host() -> str:
    return re.sub(r"\W", "_", socket.gethostname())


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
