"""What becomes of a command whose output nobody takes: a reader that leaves, a full device, a closed stream."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
PGEMBED = [sys.executable, "-m", "pgembed"]

COMMANDS = [
    ["--help"],
    ["--version"],
    ["search", "socket", "--mode", "lexical"],
    ["search", "socket", "--mode", "lexical", "--json"],
    ["status"],
    ["status", "--json"],
    ["doctor"],
    ["sources", "list"],
    ["migrate", "--sql"],
]


@pytest.fixture
def environment(searchable: psycopg.Connection, database_url: str) -> dict[str, str]:
    return {**os.environ, "PGEMBED_DSN": database_url}


def _read_one_line(arguments: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
    """Run the command, read one line through a pipe, leave; return exit code, that line and standard error."""
    process = subprocess.Popen(
        [*PGEMBED, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as errors:
        said = errors.read()
    return process.wait(timeout=60), line, said


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_nobody_reads(arguments: list[str], environment: dict[str, str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*PGEMBED, *arguments], stdout=write, stderr=subprocess.PIPE, text=True, env=environment, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_shell_with_pipefail_sees_success(environment: dict[str, str]) -> None:
    script = f"set -o pipefail; '{sys.executable}' -m pgembed search socket --mode lexical | head -1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_a_watch_ends_when_its_reader_leaves(form: list[str], environment: dict[str, str]) -> None:
    code, line, said = _read_one_line(["status", "--watch", "--every", "0.1", *form], environment)
    assert (code, said) == (0, "")
    assert line != ""


def test_psql_ends_when_its_reader_leaves(environment: dict[str, str]) -> None:
    # more than a pipe holds
    code, line, said = _read_one_line(["db", "psql", "-c", "SELECT generate_series(1, 200000)"], environment)
    assert (code, line.strip(), said) == (0, "generate_series", "")


def test_the_exit_code_of_a_failure_stays(environment: dict[str, str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*PGEMBED, "frobnicate"], stdout=write, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(write)
    assert done.returncode == 2


@needs_full
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_full_device_is_blamed_and_not_this_machine(arguments: list[str], environment: dict[str, str]) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [*PGEMBED, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "Error: Standard output could not be written: No space left on device\n"


@needs_full
def test_progress_that_cannot_be_written_does_not_end_the_work(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("def found():\n    return 'it'\n")
    with FULL.open("w") as full:
        done = subprocess.run(
            [*PGEMBED, "ingest", str(tmp_path)], stdout=subprocess.PIPE, stderr=full, text=True, env=environment,
            check=False,
        )  # fmt: skip
    assert done.returncode == 0
    assert "1 new" in done.stdout


@pytest.mark.parametrize("closed", ["1", "2"], ids=["output", "errors"])
def test_a_closed_stream_takes_everything(closed: str, environment: dict[str, str]) -> None:
    script = f"'{sys.executable}' -m pgembed status {closed}>&-"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_written_keeps_its_encoding(environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "größe"
    folder.mkdir()
    (folder / "code.py").write_text("def found():\n    return 'it'\n")
    for encoding, name in (("utf-8", "größe"), ("ascii", "gr\\xf6\\xdfe")):
        done = subprocess.run(
            [*PGEMBED, "ingest", str(folder)], capture_output=True, check=False,
            env={**environment, "PYTHONIOENCODING": encoding},
        )  # fmt: skip
        assert done.returncode == 0
        assert done.stdout.decode(encoding).startswith(f"{name} (")
