"""Which files of a folder are read, and the reason for each that is not."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pgembed.corpus.walk import Candidate, Ignored, Skipped, candidates, walk
from pgembed.errors import CorpusError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that writes a file below the root."""

    def write_file(path: str, content: str | bytes = "x = 1\n") -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    return write_file


def _read(root: Path, **options: object) -> list[str]:
    return [item.path for item in walk(root, **options) if isinstance(item, Candidate)]  # type: ignore[arg-type]


def _skipped(root: Path, **options: object) -> dict[str, str]:
    return {item.path: item.reason for item in walk(root, **options) if isinstance(item, Skipped)}  # type: ignore[arg-type]


def test_files_come_once_in_order_with_size_and_time(write: Write, tmp_path: Path) -> None:
    file = write("b/two.py", "abc")
    write("a.py")
    found = list(walk(tmp_path))
    assert [item.path for item in found] == ["a.py", "b/two.py"]
    assert found[1] == Candidate("b/two.py", 3, file.stat().st_mtime_ns)
    assert len(candidates(tmp_path)) == 2
    assert sum(item.size_bytes for item in candidates(tmp_path)) == 9


@pytest.mark.skipif(sys.platform == "win32", reason="git's own answer is compared on POSIX")
def test_gitignore_is_obeyed_as_git_obeys_it(write: Write, tmp_path: Path) -> None:
    write(".gitignore", "*.gen.py\n/only_here.py\nbuild/\n!keep.gen.py\ndocs/**/draft.md\n# remark\n\n")
    write("sub/.gitignore", "!special.gen.py\nlocal.py\n/deep/*\n!/deep/kept.py\n")
    for path in (
        "a.py", "b.gen.py", "keep.gen.py", "only_here.py", "build/x.py", "sub/only_here.py", "sub/special.gen.py",
        "sub/local.py", "sub/more/local.py", "sub/build/y.py", "sub/deep/a.py", "sub/deep/kept.py", "docs/draft.md",
        "docs/a/b/draft.md", "docs/a/final.md", "build.py",
    ):  # fmt: skip
        write(path)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".git" / "info" / "exclude").write_text("final.md\n")
    listed = subprocess.run(
        ["git", "-C", str(tmp_path), "ls-files", "--others", "--exclude-standard"],
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    ignored = Ignored()
    assert _read(tmp_path, ignored=ignored) == sorted(listed, key=lambda path: path.split("/"))
    assert ignored.count >= 8
    assert _skipped(tmp_path) == {}
    # a folder of a checkout obeys the rules of the folders above it
    assert _read(tmp_path / "sub") == sorted(path[4:] for path in listed if path.startswith("sub/"))


def test_a_root_that_its_checkout_ignores_was_meant(write: Write, tmp_path: Path) -> None:
    write(".git/HEAD")
    write(".gitignore", ".venv/\n*.log.py\n")
    write(".venv/lib/a.py")
    assert _read(tmp_path) == [".gitignore"]
    assert _read(tmp_path / ".venv" / "lib") == ["a.py"]


def test_the_callers_patterns_decide_before_gitignore(write: Write, tmp_path: Path) -> None:
    write(".gitignore", "secret.py\n")
    for path in ("secret.py", "tests/test_a.py", "src/tests.py", "src/a.sql"):
        write(path)
    assert _read(tmp_path, exclude=["tests/", "*.sql", ".gitignore"]) == ["src/tests.py"]
    assert "secret.py" in _read(tmp_path, exclude=["!secret.py"])


def test_a_gitignore_line_that_git_cannot_read_is_passed_over(write: Write, tmp_path: Path) -> None:
    write(".gitignore", b"!\n\xff\xfe.py\na.py\n")
    write("a.py")
    write("b.py")
    assert _read(tmp_path, exclude=[".gitignore"]) == ["b.py"]


def test_a_pattern_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="gitignore"):
        list(walk(tmp_path, exclude=["!"]))


@pytest.mark.parametrize("folder", ["node_modules", "vendor", "third_party", "site-packages", "_vendor"])
def test_a_vendored_folder_is_one_row(folder: str, write: Write, tmp_path: Path) -> None:
    write(f"src/{folder}/a.py")
    write(f"src/{folder}/deep/b.py")
    assert _read(tmp_path) == []
    assert _skipped(tmp_path) == {f"src/{folder}": "vendored"}
    assert _read(tmp_path / "src" / folder) == ["a.py", "deep/b.py"]  # named by hand, it is meant


def test_a_virtual_environment_is_vendored(write: Write, tmp_path: Path) -> None:
    write("env/pyvenv.cfg")
    write("env/lib/a.py")
    assert _skipped(tmp_path) == {"env": "vendored"}


def test_version_control_and_caches_are_passed_over(write: Write, tmp_path: Path) -> None:
    for path in (".git/a.py", "sub/.hg/a.py", "__pycache__/a.py", "CVS/a.py"):
        write(path)
    ignored = Ignored()
    assert list(walk(tmp_path, ignored=ignored)) == []
    assert ignored.count == 4


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("app.min.js", "generated"),
        ("message_pb2.py", "generated"),
        ("Form.Designer.cs", "generated"),
        ("picture.PNG", "binary"),
        ("table.csv", "data"),
        ("package-lock.json", "generated"),
    ],
)
def test_names_that_say_what_a_file_is(path: str, reason: str, write: Write, tmp_path: Path) -> None:
    write(path)
    assert _skipped(tmp_path) == {path: reason}


def test_a_huge_file_is_not_opened(tmp_path: Path) -> None:
    with (tmp_path / "huge.py").open("wb") as file:
        file.truncate(50_000_000)
    (item,) = walk(tmp_path, max_file_bytes=1_000_000)
    assert item == Skipped("huge.py", "too_large", "50,000,000 bytes; the limit is 1,000,000")


def test_links_pipes_and_sockets_are_not_followed(write: Write, tmp_path: Path) -> None:
    write("real.py")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "dangling.py").symlink_to("nowhere.py")
    (tmp_path / "self.py").symlink_to("self.py")
    os.mkfifo(tmp_path / "pipe.py")
    listener = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(tmp_path)  # a socket's path may have 107 bytes only
    try:
        listener.bind("socket.py")
    finally:
        os.chdir(here)
        listener.close()
    assert _read(tmp_path) == ["real.py"]
    assert _skipped(tmp_path) == {
        "loop": "symlink",
        "dangling.py": "symlink",
        "self.py": "symlink",
        "pipe.py": "not_a_file",
        "socket.py": "not_a_file",
    }


def test_paths_that_no_column_holds_are_named_readably(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"latin-\xe9.py")).write_text("x = 1\n")
    folder = tmp_path
    for _ in range(10):  # longer than a B-tree's entry
        folder = folder / ("d" * 220)
        folder.mkdir()
    (folder / "deep.py").write_text("x = 1\n")
    skipped = _skipped(tmp_path)
    assert skipped.pop("latin-\\xe9.py") == "path_encoding"
    ((path, reason),) = skipped.items()
    assert reason == "path_too_long"
    assert len(path.encode()) <= 2000


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_a_folder_that_cannot_be_listed_is_one_row(write: Write, tmp_path: Path) -> None:
    write("closed/a.py")
    (tmp_path / "closed").chmod(0)
    try:
        assert _skipped(tmp_path) == {"closed": "unreadable"}
    finally:
        (tmp_path / "closed").chmod(0o755)
