"""Ingest into the real database: what becomes rows, what is left out, and what a second run touches."""

import hashlib
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgembed.corpus.ingest import ingest
from pgembed.corpus.report import IngestReport
from pgembed.corpus.walk import candidates
from pgembed.db.connection import connect
from pgembed.errors import CorpusError
from pgembed.tokens import tokens

Write = Callable[..., Path]

_OLD_NS = 1_600_000_000_000_000_000
_TABLES = ("sources", "source_files", "code_chunks", "chunk_locations", "tokens", "rejected_items")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder to ingest."""
    folder = tmp_path / "shop"
    folder.mkdir()
    return folder


@pytest.fixture
def write(root: Path) -> Write:
    """A function that writes a file below the root, with a time stamp long past and different at each writing."""
    writings = iter(range(1_000_000))

    def write_file(path: str, content: str | bytes, *, folder: Path = root) -> Path:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        os.utime(file, ns=(_OLD_NS, _OLD_NS + next(writings)))
        return file

    return write_file


def _function(name: str, documentation: str = "") -> str:
    return (
        f'def {name}(first_value, second_value):\n    """Give {name}.{documentation}"""\n'
        f"    return first_value + {name}_offset\n"
    )


def _rejected(conn: psycopg.Connection) -> dict[str, str]:
    rows = conn.execute("SELECT path, reason FROM pgembed.rejected_items WHERE stage = 'ingest'")
    return dict(rows.fetchall())


def _locations(conn: psycopg.Connection) -> list[tuple[Any, ...]]:
    """Everything that is stored, without ids and times."""
    return conn.execute(
        """SELECT s.name, l.path, l.start_line, l.end_line, l.symbol, c.kind, c.content, c.docstring, c.body,
                  ARRAY(SELECT t.token FROM pgembed.tokens t WHERE t.id = ANY(c.token_ids) ORDER BY t.token)
             FROM pgembed.chunk_locations l JOIN pgembed.code_chunks c ON c.id = l.chunk_id
             JOIN pgembed.sources s ON s.id = l.source_id
            ORDER BY 1, 2, 3, 7"""
    ).fetchall()


def _versions(conn: psycopg.Connection, *tables: str) -> dict[str, list[Any]]:
    """Row versions of each table: a row that was written again has another."""
    return {
        table: conn.execute(f"SELECT ctid::text, xmin::text FROM pgembed.{table} ORDER BY 1").fetchall()  # type: ignore[arg-type]
        for table in tables
    }


def _assert_sound(conn: psycopg.Connection) -> None:
    """What must hold after every ingest."""
    orphans = conn.execute(
        "SELECT count(*) FROM pgembed.code_chunks c "
        "WHERE NOT EXISTS (SELECT FROM pgembed.chunk_locations l WHERE l.chunk_id = c.id)"
    ).fetchone()
    assert orphans == (0,)
    wrong = conn.execute(
        """SELECT t.token, t.document_frequency, count(c.id)
             FROM pgembed.tokens t LEFT JOIN pgembed.code_chunks c ON t.id = ANY(c.token_ids)
            GROUP BY t.id HAVING t.document_frequency <> count(c.id)"""
    ).fetchall()
    assert wrong == []
    for language, kind, content, body, sha256, ids, words in conn.execute(
        """SELECT language, kind, content, body, sha256, token_ids,
                  ARRAY(SELECT t.token FROM pgembed.tokens t WHERE t.id = ANY(c.token_ids))
             FROM pgembed.code_chunks c"""
    ):
        assert bytes(sha256) == hashlib.sha256(b"\0".join(part.encode() for part in (language, kind, content))).digest()
        assert ids == sorted(set(ids))
        assert set(words) == tokens(body)


def test_a_file_becomes_chunks_with_their_places_and_tokens(conn: psycopg.Connection, root: Path, write: Write) -> None:
    write("pkg/a.py", f"import os\n\n{_function('add')}\nclass Till:\n    def open(self):\n        return os.name\n")
    report = ingest(conn, root)
    assert (report.source, report.files_read, report.chunks_new, report.locations) == ("shop", 1, 2, 2)
    assert _locations(conn) == [
        ("shop", "pkg/a.py", 3, 5, "add", "function", _function("add").rstrip(), "Give add.",
         "def add(first_value, second_value):\n    return first_value + add_offset",
         ["add", "def", "first", "offset", "return", "second", "value"]),
        ("shop", "pkg/a.py", 8, 9, "Till.open", "method", "def open(self):\n    return os.name", None,
         "def open(self):\n    return os.name", ["def", "name", "open", "os", "return", "self"]),
    ]  # fmt: skip
    _assert_sound(conn)


def test_bad_files_are_left_out_with_their_reason_and_the_rest_is_kept(
    conn: psycopg.Connection, root: Path, write: Write
) -> None:
    write("good.py", _function("good"))
    write("nul.py", b"x = 1\0\n")
    write("latin.py", b"name = '\xe9'\n")
    write("declared.py", "# coding: latin-1\ndef f():\n    return 'é'\n".encode("latin-1"))
    write("broken.py", f"{_function('before')}\ndef broken(:\n    pass\n\n{_function('after')}")
    write("empty.py", "")
    write("blank.py", "\n\n  \n")
    write("long_line.js", "var x = '" + "y" * 200_000 + "';")
    write("generated.py", "# @generated\ndef f(): pass\n")
    write("docstring.py", 'def f():\n    "Holds \\0 and \\ud800."\n    return f\n')
    write("node_modules/a/b.js", "function x() {}")
    write("node_modules/c.js", "function x() {}")
    with (root / "huge.py").open("wb") as file:
        file.truncate(50_000_000)
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "dangling.py").symlink_to("nowhere")
    os.mkfifo(root / "pipe.py")
    (root / os.fsdecode(b"caf\xe9.py")).write_text("x = 1\n")
    (root / "escape\x1b[31m\n.py").write_text(_function("escape"))
    report = ingest(conn, root)
    assert _rejected(conn) == {
        "nul.py": "nul_bytes", "latin.py": "encoding", "broken.py": "syntax_error", "long_line.js": "minified",
        "generated.py": "generated", "node_modules": "vendored", "huge.py": "too_large", "loop": "symlink",
        "dangling.py": "symlink", "pipe.py": "not_a_file", "caf\\xe9.py": "path_encoding",
    }  # fmt: skip
    assert dict(report.left_out) == {
        "nul_bytes": 1, "encoding": 1, "minified": 1, "generated": 1, "vendored": 1, "too_large": 1, "symlink": 2,
        "not_a_file": 1, "path_encoding": 1,
    }  # fmt: skip
    assert dict(report.partly_read) == {"syntax_error": 1}
    assert report.examples["left out"]["symlink"] == ["dangling.py", "loop"]
    assert report.examples["partly read"] == {"syntax_error": ["broken.py"]}
    assert report.files_empty == 2
    symbols = {row[4] for row in _locations(conn)}
    assert symbols == {"good", "f", "before", "after", "escape"}
    detail = conn.execute("SELECT detail FROM pgembed.rejected_items WHERE reason = 'syntax_error'").fetchone()
    assert detail == ("line 5; left out: broken",)
    _assert_sound(conn)


def test_a_second_run_writes_no_row_but_the_sources(conn: psycopg.Connection, root: Path, write: Write) -> None:
    for number in range(5):
        write(f"m{number}.py", _function(f"f{number}"))
    write("nul.py", b"\0")
    write("broken.py", f"def broken(:\n    pass\n\n{_function('after')}")
    first = ingest(conn, root)
    before = _versions(conn, *_TABLES[1:])
    second = ingest(conn, root)
    assert _versions(conn, *_TABLES[1:]) == before
    assert (second.files_read, second.files_unchanged, second.chunks_new, second.chunks_deleted) == (0, 6, 0, 0)
    assert (second.left_out, second.partly_read) == (first.left_out, first.partly_read)
    assert (dict(first.left_out), dict(first.partly_read)) == ({"nul_bytes": 1}, {"syntax_error": 1})
    assert (second.chunks, second.locations) == (first.chunks, first.locations)


def test_a_touched_file_is_not_cut_again(conn: psycopg.Connection, root: Path, write: Write) -> None:
    write("a.py", _function("a"))
    ingest(conn, root)
    before = _versions(conn, "code_chunks", "chunk_locations")
    write("a.py", _function("a"))
    report = ingest(conn, root)
    assert (report.files_read, report.files_unchanged) == (0, 1)
    assert _versions(conn, "code_chunks", "chunk_locations") == before
    stamp = conn.execute("SELECT modified_ns FROM pgembed.source_files").fetchone()
    assert stamp == ((root / "a.py").stat().st_mtime_ns,)


def test_a_file_written_again_within_the_clocks_grain_is_seen(conn: psycopg.Connection, root: Path) -> None:
    file = root / "a.py"
    file.write_text(_function("one"))
    stamp = file.stat().st_mtime_ns
    ingest(conn, root)
    file.write_text(_function("two"))  # as many bytes
    os.utime(file, ns=(stamp, stamp))
    report = ingest(conn, root)
    assert report.files_changed == 1
    assert [row[4] for row in _locations(conn)] == ["two"]


def test_change_deletion_and_renaming(conn: psycopg.Connection, root: Path, write: Write) -> None:
    write("a.py", _function("stays") + _function("goes"))
    write("b.py", _function("old"))
    write("c.py", _function("moved"))
    ingest(conn, root)
    moved = conn.execute("SELECT id FROM pgembed.code_chunks WHERE symbol = 'moved'").fetchone()
    untouched = conn.execute("SELECT id, xmin::text FROM pgembed.code_chunks WHERE symbol = 'stays'").fetchone()
    write("a.py", _function("comes") + _function("stays"))
    (root / "b.py").unlink()
    (root / "c.py").rename(root / "d.py")
    report = ingest(conn, root)
    assert (report.files_read, report.files_changed, report.files_deleted) == (2, 1, 2)
    assert (report.chunks_new, report.chunks_reused, report.chunks_deleted) == (1, 2, 2)
    assert [(row[1], row[2], row[4]) for row in _locations(conn)] == [
        ("a.py", 1, "comes"), ("a.py", 4, "stays"), ("d.py", 1, "moved"),
    ]  # fmt: skip
    # a renamed file keeps its chunk, and with it pairs and vectors
    assert conn.execute("SELECT id FROM pgembed.code_chunks WHERE symbol = 'moved'").fetchone() == moved
    assert untouched == conn.execute("SELECT id, xmin::text FROM pgembed.code_chunks WHERE symbol = 'stays'").fetchone()
    _assert_sound(conn)


def test_a_file_that_turns_bad_loses_its_rows_and_comes_back(
    conn: psycopg.Connection, root: Path, write: Write
) -> None:
    write("a.py", _function("a"))
    ingest(conn, root)
    write("a.py", b"\0")
    report = ingest(conn, root)
    assert report.chunks_deleted == 1
    assert _rejected(conn) == {"a.py": "nul_bytes"}
    write("a.py", b"\xe9")
    ingest(conn, root)
    assert _rejected(conn) == {"a.py": "encoding"}
    write("a.py", _function("a"))
    report = ingest(conn, root)
    assert (report.chunks, dict(report.left_out)) == (1, {})
    assert _rejected(conn) == {}
    write("bad.py", b"\0")
    ingest(conn, root)
    (root / "bad.py").unlink()
    ingest(conn, root)
    assert _rejected(conn) == {}
    _assert_sound(conn)


def test_what_cannot_be_looked_at_keeps_its_rows(
    conn: psycopg.Connection, root: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("closed/a.py", _function("a"))
    write("b.py", _function("b"))
    ingest(conn, root)
    real = os.scandir

    def refuse(path: Path) -> Any:  # as root no permission stops us: a disk's error is what is left
        if Path(path).name == "closed":
            raise OSError(5, "Input/output error")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        report = ingest(conn, root)
    assert (report.files_deleted, report.chunks) == (0, 2)
    assert _rejected(conn) == {"closed": "unreadable"}
    assert (dict(report.left_out), dict(report.not_read_again)) == ({}, {"unreadable": 1})
    ingest(conn, root)
    assert _rejected(conn) == {}


def test_the_same_code_in_two_sources_is_one_chunk_with_two_places(
    conn: psycopg.Connection, root: Path, write: Write, tmp_path: Path
) -> None:
    branch = tmp_path / "branch"
    write("a.py", _function("same"))
    write("b.py", _function("other") + _function("same"), folder=branch)
    ingest(conn, root)
    report = ingest(conn, branch)
    assert (report.chunks_new, report.chunks_reused, report.chunks) == (1, 1, 2)
    assert [(row[0], row[4]) for row in _locations(conn)] == [("branch", "other"), ("branch", "same"), ("shop", "same")]
    write("left.py", "")
    write("left.py", "", folder=branch)
    (root / "a.py").unlink()
    assert ingest(conn, root).chunks_deleted == 0
    (branch / "b.py").unlink()
    assert ingest(conn, branch).chunks_deleted == 2
    _assert_sound(conn)


def test_a_folder_that_is_empty_all_at_once_removes_nothing(conn: psycopg.Connection, root: Path, write: Write) -> None:
    write("a.py", _function("a"))
    ingest(conn, root)
    before = _locations(conn)
    (root / "a.py").unlink()
    with pytest.raises(CorpusError, match="No file of code is left") as refused:
        ingest(conn, root)
    assert "pgembed sources forget shop" in str(refused.value)
    assert _locations(conn) == before


def test_selected_files_are_the_source(conn: psycopg.Connection, root: Path, write: Write) -> None:
    for name in ("a", "b", "c"):
        write(f"{name}.py", _function(name))
    write("nul.py", b"\0")
    assert len(candidates(root)) == 4
    report = ingest(conn, root, select=lambda path: path != "nul.py")
    assert (report.files_read, dict(report.left_out)) == (3, {})
    report = ingest(conn, root, select={"a.py", "b.py"}.__contains__)
    assert (report.files_unchanged, report.files_deleted, report.chunks) == (2, 1, 2)
    report = ingest(conn, root, exclude=["a.py", "nul.py"])
    assert [row[1] for row in _locations(conn)] == ["b.py", "c.py"]
    assert report.files_ignored == 2


def test_a_file_is_a_source_of_its_own(conn: psycopg.Connection, root: Path, write: Write) -> None:
    write("a.py", _function("a"))
    write("b.py", _function("b"))
    ingest(conn, root)
    report = ingest(conn, root / "b.py")
    assert (report.source, report.chunks, report.chunks_reused) == ("b.py", 1, 1)
    assert len(_locations(conn)) == 3


def test_names_of_sources(conn: psycopg.Connection, tmp_path: Path) -> None:
    one, two, three = (tmp_path / part / "api" for part in ("one", "two", "three"))
    for folder in (one, two, three):
        folder.mkdir(parents=True)
    assert ingest(conn, one).source == "api"
    assert ingest(conn, two).source == "two/api"
    assert ingest(conn, one).source == "api"
    assert ingest(conn, one, name="main").source == "main"  # the same root is the same source, renamed
    assert ingest(conn, one).source == "main"
    with pytest.raises(CorpusError, match=r"'main' is .*cannot be"):
        ingest(conn, three, name="main")
    two.rename(tmp_path / "moved")
    assert ingest(conn, tmp_path / "moved", name="two/api").source == "two/api"
    rows = conn.execute("SELECT name, root FROM pgembed.sources ORDER BY id").fetchall()
    assert rows == [("main", str(one)), ("two/api", str(tmp_path / "moved"))]


def test_the_commit_is_recorded(conn: psycopg.Connection, root: Path, write: Write) -> None:
    write("a.py", _function("a"))
    git = ["git", "-C", str(root), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    ingest(conn, root)
    assert conn.execute("SELECT revision FROM pgembed.sources").fetchone() == (head,)


def test_a_path_that_does_not_exist_is_an_error(conn: psycopg.Connection, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="does not exist"):
        ingest(conn, tmp_path / "nowhere")


def test_workers_give_what_one_process_gives(
    conn: psycopg.Connection, root: Path, write: Write, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    for number in range(300):
        content = "".join(_function(f"f{number}_{part}", " word" * 100) for part in range(20))
        write(f"m{number}.py", content)
        write(f"m{number}.py", content, folder=copy)
    write("nul.py", b"\0")
    alone = ingest(conn, root)
    conn.execute("DELETE FROM pgembed.sources")
    conn.execute("TRUNCATE pgembed.code_chunks, pgembed.tokens CASCADE")
    together = ingest(conn, root, jobs=3)
    for report in (alone, together):
        report.seconds = 0.0
    assert together == alone
    _assert_sound(conn)
    assert ingest(conn, copy, jobs=3).chunks_reused == 6000


def _many(write: Write, count: int, folder: Path) -> None:
    for number in range(count):
        write(f"m{number:04}.py", _function(f"f{number}") + _function(f"shared{number % 50}"), folder=folder)


def test_two_at_once_over_one_source_and_over_two(
    conn: psycopg.Connection, database_url: str, root: Path, write: Write, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    _many(write, 1200, root)
    _many(write, 1200, other)
    reports: list[IngestReport] = []

    def run(folder: Path) -> None:
        with connect(database_url, access="session") as own:
            reports.append(ingest(own, folder))

    for _ in range(2):  # the second time, files are removed and added while the others are read
        threads = [threading.Thread(target=run, args=(folder,)) for folder in (root, root, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number in range(0, 1200, 3):
            (root / f"m{number:04}.py").unlink(missing_ok=True)
            write(f"n{number:04}.py", _function(f"f{number}"), folder=other)
    assert len(reports) == 6
    assert sorted(report.files_read for report in reports) == [0, 0, 0, 400, 1200, 1200]
    assert conn.execute("SELECT count(*), count(DISTINCT name) FROM pgembed.sources").fetchone() == (2, 2)
    _assert_sound(conn)
    straight = _locations(conn)
    conn.execute("TRUNCATE pgembed.sources, pgembed.code_chunks, pgembed.tokens CASCADE")
    for number in range(0, 1200, 3):
        (root / f"m{number:04}.py").unlink(missing_ok=True)
    ingest(conn, root)
    ingest(conn, other)
    assert _locations(conn) == straight
