"""Which files of a folder are code that the team wrote: candidates, and what is left out with the reason for each.

.gitignore files are obeyed at every level; what they exclude is counted, not listed. A folder that is left out is one
entry, whatever it holds. Symbolic links are not followed: what they point to is found where it stands, if it stands
below the root, and loops cannot trap.
"""

import fnmatch
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pathspec import GitIgnoreSpec

from pgembed.corpus.chunkers import third_party
from pgembed.corpus.file_types import is_binary, is_data
from pgembed.errors import CorpusError

MAX_FILE_BYTES = 1_000_000
"""Larger files are data or generated; of the 1,800 files of the standard library the largest has 0.6 MB."""

MAX_PATH_BYTES = 2000
"""A longer path does not fit a B-tree's entry (2,704 bytes)."""

_VERSION_CONTROL = frozenset({".git", ".hg", ".svn", ".bzr", "_darcs", ".jj", "CVS"})
_CACHES = frozenset({"__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".nox", ".hypothesis"})
_VENDORED = frozenset(
    {"node_modules", "bower_components", "jspm_packages", "vendor", "vendored", "third_party", "third-party",
     "thirdparty", "site-packages", "dist-packages", "_vendor", "_bundled", "Pods", "Carthage"}
)  # fmt: skip
_GENERATED = ("*.min.js", "*.min.css", "*.min.mjs", "*.bundle.js", "*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*.pb.go",
              "*.pb.cc", "*.pb.h", "*.g.dart", "*.g.cs", "*.designer.cs", "*.generated.*", "*_generated.go",
              "package-lock.json", "*-lock.yaml")  # fmt: skip


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
    """How many files and folders are excluded without a word for each: .gitignore, --exclude, .git, caches."""

    count: int = 0


@dataclass(frozen=True, slots=True)
class _Rules:
    """The patterns of one .gitignore, and the folder that it stands in, as seen from the root ('' the root)."""

    base: str
    above: str
    """For a .gitignore above the root: the path from its folder to the root, which it sees before ours."""
    spec: GitIgnoreSpec

    def verdict(self, path: str) -> bool | None:
        relative = path[len(self.base) + 1 :] if self.base else path
        include: bool | None = self.spec.check_file(self.above + relative).include
        return include


@dataclass(slots=True)
class _Walk:
    root: Path
    exclude: GitIgnoreSpec
    max_file_bytes: int
    ignored: Ignored

    def folder(self, folder: str, rules: list[_Rules]) -> Iterator[Candidate | Skipped]:
        here = self.root / folder if folder else self.root
        try:
            with os.scandir(here) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            yield Skipped(shown(folder) or ".", "unreadable", error.strerror or str(error))
            return
        names = {entry.name for entry in entries}
        if folder and "pyvenv.cfg" in names:
            yield Skipped(shown(folder), "vendored", "a virtual environment")
            return
        if ".gitignore" in names:
            rules = [*rules, *_gitignore(here / ".gitignore", base=folder)]
        for entry in entries:
            yield from self._entry(entry, f"{folder}/{entry.name}" if folder else entry.name, rules)

    def _entry(self, entry: "os.DirEntry[str]", path: str, rules: list[_Rules]) -> Iterator[Candidate | Skipped]:
        reason = detail = ""
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError as error:
            yield Skipped(shown(path), "unreadable", error.strerror or str(error))
            return
        is_folder = stat.S_ISDIR(status.st_mode)
        is_apart = entry.name in _VERSION_CONTROL or (is_folder and entry.name in _CACHES)
        if is_apart or self._is_ignored(f"{path}/" if is_folder else path, rules):
            self.ignored.count += 1
            return
        encoded = os.fsencode(path)
        if len(encoded) > MAX_PATH_BYTES:
            reason, detail = "path_too_long", f"{len(encoded):,} bytes; the limit is {MAX_PATH_BYTES:,}"
        elif shown(path) != path:
            reason, detail = "path_encoding", "the path is not UTF-8"
        elif stat.S_ISLNK(status.st_mode):
            reason, detail = "symlink", f"to {_target(entry.path)}"
        elif is_folder and entry.name in _VENDORED:
            reason, detail = "vendored", "a folder of other people's code"
        elif is_folder:
            yield from self.folder(path, rules)
            return
        elif not stat.S_ISREG(status.st_mode):
            reason, detail = "not_a_file", "a pipe, socket or device"
        elif any(fnmatch.fnmatch(entry.name.lower(), pattern) for pattern in _GENERATED):
            reason, detail = "generated", "by its name"
        elif PurePosixPath(entry.name.lower()).suffix not in third_party() and (is_binary(path) or is_data(path)):
            reason, detail = ("binary" if is_binary(path) else "data"), "by its name"
        elif status.st_size > self.max_file_bytes:
            reason, detail = "too_large", f"{status.st_size:,} bytes; the limit is {self.max_file_bytes:,}"
        if reason:
            yield Skipped(shown(path), reason, detail)
        else:
            yield Candidate(path, status.st_size, status.st_mtime_ns)

    def _is_ignored(self, path: str, rules: list[_Rules]) -> bool:
        # the caller decides first, then the innermost .gitignore that says anything, as git has it
        said = self.exclude.check_file(path).include
        for rule in reversed(rules):
            if said is not None:
                break
            said = rule.verdict(path)
        return bool(said)


def walk(
    root: Path,
    *,
    exclude: Sequence[str] = (),
    max_file_bytes: int = MAX_FILE_BYTES,
    ignored: Ignored | None = None,
) -> Iterator[Candidate | Skipped]:
    """Yield every file below `root` once, in the order of the paths, as a candidate or as skipped.

    `exclude` are patterns as in .gitignore, seen from the root; one that names a folder excludes all of it.

    Raises:
        CorpusError: a pattern in `exclude` is none.
    """
    try:
        own = GitIgnoreSpec.from_lines(exclude)
    except ValueError as error:
        raise CorpusError(f"{error}", remedy="Patterns are written as in .gitignore: 'tests/', '*.sql'.") from error
    counter = Ignored() if ignored is None else ignored
    yield from _Walk(root, own, max_file_bytes, counter).folder("", _rules_above(root))


def candidates(root: Path, *, exclude: Sequence[str] = (), max_file_bytes: int = MAX_FILE_BYTES) -> list[Candidate]:
    """Return the files that an ingest of `root` would read, with their sizes; reads none of them."""
    found = walk(root, exclude=exclude, max_file_bytes=max_file_bytes)
    return [item for item in found if isinstance(item, Candidate)]


def shown(path: str) -> str:
    """Return a path that a text column can hold: bytes that are no UTF-8 as \\xNN, cut to what an index takes."""
    return os.fsencode(path)[:MAX_PATH_BYTES].decode("utf-8", "backslashreplace")


def _target(link: str) -> str:
    try:
        return shown(str(Path(link).readlink()))
    except OSError:
        return "somewhere that cannot be read"


def _rules_above(root: Path) -> list[_Rules]:
    """Return the rules of the checkout that `root` is a folder of: its .gitignore files above, and info/exclude."""
    top = next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), None)
    if top is None:
        return []
    rules = _gitignore(top / ".git" / "info" / "exclude", above=_between(top, root))
    for folder in reversed(root.parents):
        if folder == top or top in folder.parents:
            rules += _gitignore(folder / ".gitignore", above=_between(folder, root))
    # a root that the checkout ignores (an environment, a build) was named on purpose: then its rules are not ours
    return [] if any(rule.above and rule.spec.check_file(rule.above).include for rule in rules) else rules


def _between(folder: Path, root: Path) -> str:
    return "".join(f"{part}/" for part in root.relative_to(folder).parts)


def _gitignore(path: Path, *, base: str = "", above: str = "") -> list[_Rules]:
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    patterns = []
    for line in lines:
        try:
            GitIgnoreSpec.from_lines([line])
        except ValueError:
            continue  # git passes over what it cannot read
        patterns.append(line)
    return [_Rules(base, above, GitIgnoreSpec.from_lines(patterns))]
