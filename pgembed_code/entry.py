"""The command `pgembed`: it starts the command line once the module `pgembed` is known to be this distribution's."""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from pathlib import Path
from typing import NoReturn

from pgembed_code.installation import NAME, again_line, pip

_INTERRUPTED = 130
_MODULE = "pgembed"  # and the name of the other project's distribution


def main() -> NoReturn:
    """Run the command line, or say what stands in its way."""
    if problem := in_the_way():
        sys.stderr.write(f"Error: {problem}\n")
        sys.exit(1)
    try:
        from pgembed.cli.app import main as run

        run()
    except KeyboardInterrupt:  # while it starts; later the command line sees to it
        sys.exit(_INTERRUPTED)


def in_the_way() -> str | None:
    """Return why the module `pgembed` cannot be used, and what to do; None where all is well. Takes about 1 ms."""
    spec = importlib.util.find_spec(_MODULE)
    other = _other()
    if other is not None and _is_of(spec, other):
        return (
            f"Two distributions install the module {_MODULE} here: {_MODULE} {other.version}, which is another "
            f"project, and {NAME} {version(NAME)}.\n"
            f"  Take the other one away: {pip('uninstall')} {_MODULE}{_then(again_line())}"
        )
    if spec is None or spec.origin is None:  # such as after `pip uninstall pgembed`, which takes files of ours as well
        return f"Files of {NAME} are missing.\n  Install it again: {again_line(always=True)}"
    folder = Path(spec.origin).parent
    if not (folder / "cli" / "app.py").is_file():
        return (
            f"The module {_MODULE} that Python finds is not {NAME}'s: {folder}.\n"
            "  Rename that folder, take it off PYTHONPATH, or run the command from elsewhere."
        )
    return None


def _other() -> Distribution | None:
    try:
        return distribution(_MODULE)
    except PackageNotFoundError:
        return None


def _is_of(spec: ModuleSpec | None, other: Distribution) -> bool:
    """Whether the module that Python finds stands where `other` has installed it; elsewhere it is harmless."""
    if spec is None or spec.origin is None:
        return False
    return Path(spec.origin).resolve() == Path(str(other.locate_file(f"{_MODULE}/__init__.py"))).resolve()


def _then(line: str) -> str:
    return f" && {line}" if line else ""
