"""Which files of a folder are code that the team wrote: candidates, and what is left out with the reason for each.

.gitignore files are obeyed at every level; what they exclude is counted, not listed. A folder that is left out is one
entry, whatever it holds.
"""

import fnmatch
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from pgembed.corpus.languages import language_of

_VERSION_CONTROL = frozenset({".git", ".hg", ".svn", ".bzr", "_darcs", ".jj"})
_CACHES = frozenset({"__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".nox", ".hypothesis"})
_VENDORED = frozenset(
    {"node_modules", "bower_components", "vendor", "third_party", "third-party", "thirdparty", "site-packages",
     "dist-packages", "_vendor", "_bundled", "Pods", "Carthage"}
)  # fmt: skip
_GENERATED = ("*.min.js", "*.min.css", "*.bundle.js", "*_pb2.py", "*_pb2_grpc.py", "*.pb.go", "*.pb.cc", "*.pb.h",
              "*.g.dart", "*.designer.cs", "*.generated.*")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file to read."""

    path: str
    """Relative to the root, '/' between the parts."""
    size_bytes: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that is left out."""

    path: str
    reason: str
    detail: str = ""


@dataclass(slots=True)
class Ignored:
    """How many files and folders .gitignore or the caller excluded."""

    count: int = 0


def walk(
    root: Path, *, exclude: Sequence[str] = (), max_file_bytes: int, ignored: Ignored | None = None
) -> Iterator[Candidate | Skipped]:
    """Yield every file below `root` once, in the order of the paths, as a candidate or as skipped.

    `exclude` are glob patterns on the relative path; like .gitignore's, one that names a folder excludes all of it.
    Symbolic links are not followed: what they point to is found where it stands, and loops cannot trap.
    """
    own = GitIgnoreSpec.from_lines(exclude)
    yield from _folder(root, "", [("", own)], max_file_bytes, ignored or Ignored())


def _folder(
    root: Path, folder: str, rules: list[tuple[str, GitIgnoreSpec]], max_file_bytes: int, ignored: Ignored
) -> Iterator[Candidate | Skipped]:
    here = root / folder if folder else root
    try:
        entries = sorted(os.scandir(here), key=lambda entry: entry.name)
    except OSError as error:
        yield Skipped(_shown(folder) or ".", "unreadable", error.strerror or str(error))
        return
    names = {entry.name for entry in entries}
    if folder and "pyvenv.cfg" in names:
        yield Skipped(_shown(folder), "vendored", "a virtual environment")
        return
    if ".gitignore" in names:
        try:
            lines = (here / ".gitignore").read_text(encoding="utf-8", errors="replace").splitlines()
            rules = [*rules, (folder, GitIgnoreSpec.from_lines(lines))]
        except (OSError, ValueError) as error:
            yield Skipped(_shown(f"{folder}/.gitignore".lstrip("/")), "unreadable", str(error))
    for entry in entries:
        path = f"{folder}/{entry.name}" if folder else entry.name
        try:
            path.encode("utf-8")
        except UnicodeEncodeError:
            yield Skipped(_shown(path), "path_encoding", "the path is not UTF-8")
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError as error:
            yield Skipped(path, "unreadable", error.strerror or str(error))
            continue
        is_folder = stat.S_ISDIR(status.st_mode)
        if entry.name in _VERSION_CONTROL or (is_folder and entry.name in _CACHES):
            continue
        if _is_ignored(path, rules, is_folder=is_folder):
            ignored.count += 1
        elif stat.S_ISLNK(status.st_mode):
            yield Skipped(path, "symlink")
        elif is_folder and entry.name in _VENDORED:
            yield Skipped(path, "vendored", "a folder of other people's code")
        elif is_folder:
            yield from _folder(root, path, rules, max_file_bytes, ignored)
        elif not stat.S_ISREG(status.st_mode):
            yield Skipped(path, "not_a_file", "a pipe, socket or device")
        elif language_of(path) is None:
            yield Skipped(path, "not_code", f"no language is known for *{Path(path).suffix or entry.name}")
        elif any(fnmatch.fnmatch(entry.name.lower(), pattern) for pattern in _GENERATED):
            yield Skipped(path, "generated", "by its name")
        elif status.st_size > max_file_bytes:
            yield Skipped(path, "too_large", f"{status.st_size:,} bytes; the limit is {max_file_bytes:,}")
        else:
            yield Candidate(path, status.st_size, status.st_mtime_ns)


def _is_ignored(path: str, rules: list[tuple[str, GitIgnoreSpec]], *, is_folder: bool) -> bool:
    # the innermost file that says anything decides, as git has it
    for base, spec in reversed(rules):
        relative = path[len(base) + 1 :] if base else path
        result = spec.check_file(relative + "/" if is_folder else relative)
        if result.include is not None:
            return bool(result.include)
    return False


def _shown(path: str) -> str:
    """Return a path that a text column can hold: bytes that are no UTF-8 as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
