"""`pgembed ingest` as a command: what it prints, and what being killed costs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
from typer.testing import CliRunner

from pgembed.cli.app import app

_STATE = """
    SELECT l.path, l.start_line, l.end_line, l.symbol, c.sha256, c.docstring,
           ARRAY(SELECT t.token FROM pgembed.tokens t WHERE t.id = ANY(c.token_ids) ORDER BY t.token)
      FROM pgembed.chunk_locations l JOIN pgembed.code_chunks c ON c.id = l.chunk_id ORDER BY 1, 2, 5
"""


def _write(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        body = "".join(f"    value_{number}_{line} = {line}\n" for line in range(40))
        (folder / f"m{number:04}.py").write_text(
            f'def one_{number}():\n    """Says {number}."""\n{body}\n\ndef two_{number}():\n    return {number}\n'
        )


def test_the_report_says_what_was_done_and_what_was_left_out(database_url: str, tmp_path: Path) -> None:
    _write(tmp_path / "shop", 3)
    (tmp_path / "shop" / "esc\x1b[31m\u202e.py").write_bytes(b"\0")
    arguments = ["ingest", str(tmp_path / "shop"), "--dsn", database_url, "--exclude", "m0002.py"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "2 read (0 changed" in result.stdout
    assert "4 new, 0 reused, 0 deleted; now 4 at 4 places" in result.stdout
    assert "left out, nul_bytes: 1 (esc\\x1b[31m\\u202e.py)" in result.stdout
    assert "\x1b[31m" not in result.stdout
    result = CliRunner().invoke(app, [*arguments, "--json"])
    (report,) = json.loads(result.stdout)
    assert (report["files_unchanged"], report["left_out"]) == (2, {"nul_bytes": 1})
    assert report["files_ignored"] == 1


def test_a_file_with_chunks_is_not_called_left_out(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text("def broken(:\n    pass\n\n\ndef whole():\n    return 1\n")
    (tmp_path / "nothing.py").write_bytes(b"\0")
    arguments = ["ingest", str(tmp_path), "--dsn", database_url]
    shown = CliRunner().invoke(app, arguments).stdout
    assert "1 new" in shown
    assert "  partly read, syntax_error: 1 (half.py)\n" in shown
    assert "  left out, nul_bytes: 1 (nothing.py)\n" in shown
    (report,) = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert (report["left_out"], report["partly_read"]) == ({"nul_bytes": 1}, {"syntax_error": 1})
    status = json.loads(CliRunner().invoke(app, ["status", "--json", "--dsn", database_url]).stdout)
    assert {(row["outcome"], row["example"]) for row in status["rejected"]} == {
        ("left out", "nothing.py"), ("partly read", "half.py"),
    }  # fmt: skip


def test_a_path_that_does_not_exist_ends_the_command_before_it_begins(
    database_url: str, conn: psycopg.Connection, tmp_path: Path
) -> None:
    _write(tmp_path / "shop", 1)
    done = subprocess.run(
        [sys.executable, "-m", "pgembed", "ingest", str(tmp_path / "shop"), str(tmp_path / "nowhere"), "--dsn",
         database_url],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "nowhere does not exist" in done.stderr
    assert "Traceback" not in done.stderr
    assert conn.execute("SELECT count(*) FROM pgembed.sources").fetchone() == (0,)


def _start(database_url: str, folder: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "pgembed", "ingest", str(folder), "--jobs", "2", "--dsn", database_url],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def _wait_for_files(conn: psycopg.Connection, process: "subprocess.Popen[bytes]") -> None:
    """Return once a slice is committed, while the process still works on the next."""
    for _ in range(3000):
        row = conn.execute("SELECT EXISTS (SELECT FROM pgembed.source_files)").fetchone()
        if row == (True,):
            assert process.poll() is None, "it ended before it could be stopped: more files are needed"
            return
        time.sleep(0.01)
    raise AssertionError("no slice was committed")


def _children(process_id: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()]


def test_killed_or_interrupted_and_run_again_equals_a_straight_run(
    database_url: str, conn: psycopg.Connection, tmp_path: Path
) -> None:
    folder = tmp_path / "shop"
    _write(folder, 4000)
    for sign in (signal.SIGKILL, signal.SIGINT):
        conn.execute("TRUNCATE pgembed.sources, pgembed.code_chunks, pgembed.tokens CASCADE")
        process = _start(database_url, folder)
        _wait_for_files(conn, process)
        workers = _children(process.pid)
        os.kill(process.pid, sign)
        _, errors = process.communicate(timeout=60)
        assert process.returncode != 0
        assert b"Traceback" not in errors
        for worker in workers:  # none stays behind
            for _ in range(500):
                if not Path(f"/proc/{worker}").exists():
                    break
                time.sleep(0.01)
            assert not Path(f"/proc/{worker}").exists()
        row = conn.execute("SELECT count(*) FROM pgembed.source_files").fetchone()
        assert row is not None
        assert 0 < row[0] < 4000
        result = CliRunner().invoke(app, ["ingest", str(folder), "--dsn", database_url, "--jobs", "1", "--json"])
        (report,) = json.loads(result.stdout)
        assert report["files_unchanged"] >= row[0] - 500
        assert report["files_unchanged"] + report["files_read"] == 4000
    again = conn.execute(_STATE).fetchall()
    conn.execute("TRUNCATE pgembed.sources, pgembed.code_chunks, pgembed.tokens CASCADE")
    CliRunner().invoke(app, ["ingest", str(folder), "--dsn", database_url, "--jobs", "1"])
    assert conn.execute(_STATE).fetchall() == again
    assert len(again) == 8000
