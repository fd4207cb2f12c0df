"""Where this distribution was installed from, and the lines that install more of it: they work from where it is.

pip keeps the origin in direct_url.json (PEP 610): a checkout, a file, an address. Without one it came from an index.
"""

import json
import os
import shlex
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NAME = "pgembed-code"


def install_line(extra: str) -> str:
    """Return the line that installs the extra `extra` into this environment."""
    return f"{pip('install')} {shlex.join(_what(extra))}"


def again_line(*, always: bool = False) -> str:
    """Return the line that puts lost files back; empty where none can be lost, since they stand in a checkout."""
    if _is_editable(_origin()) and not always:
        return ""
    return f"{pip('install')} --force-reinstall --no-deps {shlex.join(_what(''))}"


def upgrade_advice() -> str:
    """Return where a newer version comes from."""
    origin = _origin()
    folder = _folder(origin)
    if folder is not None and _is_editable(origin):
        pull = f"git -C {shlex.quote(str(folder))} pull && " if (folder / ".git").exists() else ""
        return f"Update the checkout that pgembed runs from: {pull}{install_line('')}"
    if origin:
        return f"Install the newer {NAME}, as this one was from {origin['url']}."
    return f"Install the newer {NAME}: {pip('install')} --upgrade {NAME}"


def pip(command: str) -> str:
    """Return the start of a line that calls pip's `command` for the Python that runs this."""
    here = Path(sys.executable).parent
    if find_spec("pip") is None:  # an environment of uv has none
        return f"uv pip {command} --python {shlex.quote(sys.executable)}"
    found = shutil.which("pip")
    if found is not None and Path(found).parent.resolve() == here.resolve():
        return f"pip {command}"
    return f"{shlex.quote(sys.executable)} -m pip {command}"


def _what(extra: str) -> list[str]:
    """Return the arguments of `pip install` that name this distribution with `extra`."""
    extras = f"[{extra}]" if extra else ""
    origin = _origin()
    folder = _folder(origin)
    if folder is not None:
        path = "." if folder.resolve() == _here() else str(folder)
        return [*(["-e"] if _is_editable(origin) else []), path + extras]
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        return [f"{NAME}{extras} @ {vcs['vcs']}+{origin['url']}@{vcs['commit_id']}"]
    if "archive_info" in origin and not _is_gone(origin["url"]):
        return [f"{NAME}{extras} @ {origin['url']}"]
    return [NAME + extras]


def _origin() -> dict[str, Any]:
    """Return what pip noted of where the distribution came from; empty where it was an index, or nobody knows."""
    try:
        noted = distribution(NAME).read_text("direct_url.json")
    except PackageNotFoundError:
        return {}
    return dict(json.loads(noted)) if noted else {}


def _is_editable(origin: dict[str, Any]) -> bool:
    return bool(origin.get("dir_info", {}).get("editable"))


def _folder(origin: dict[str, Any]) -> Path | None:
    """Return the folder that it was installed from, where that is still there."""
    if "dir_info" not in origin:
        return None
    folder = _path(origin["url"])
    return folder if folder.is_dir() else None


def _is_gone(url: str) -> bool:
    return url.startswith("file:") and not _path(url).exists()


def _path(url: str) -> Path:
    from urllib.parse import urlsplit  # every command starts through here, and these bring the whole of HTTP
    from urllib.request import url2pathname

    return Path(url2pathname(urlsplit(url).path))


def _here() -> Path | None:
    try:
        return Path(os.getcwd()).resolve()  # noqa: PTH109 - the same call, and the one that raises where it is gone
    except OSError:
        return None
