"""What a person gets wrong at the command line: the exit code, the value that is wrong, and never a traceback.

`pgembed` runs in this process and lets through what it cannot explain, so that a traceback fails a test here.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from fixtures_cli import Outcome, pgembed

HUGE = str(10**20)
BAD_BYTES = os.fsdecode(b"a\xff")

# Arguments, exit code, and what must be said. Paths are relative to `place`.
WRONG_USAGE = [
    ("ingest", "Missing argument"),
    ("ingest|", "A PATH is empty"),
    ("ingest|code|code|--name|x", "--name goes with one PATH"),
    ("ingest|code|--max-file-bytes|0", "--max-file-bytes"),
    ("search", "Give a text"),
    ("search|x|--like|src/m0.py:1", "Give a text"),
    ("search|x|--k|0", "--k"),
    ("search|x|--k|many", "--k"),
    ("search|x|--mode|magic", "magic"),
    ("search|x|--language|pyton", "pyton"),
    ("search|x|--mode|lexical|--exact", "--exact"),
    ("status|--every|1", "--every goes with --watch"),
    ("status|--watch|--every|0", "--every"),
    ("migrate|--to|9999", "9999"),
    ("migrate|--down|tomorrow", "tomorrow"),
    ("reindex|--artefact|nowhere", "nowhere"),
    ("reindex|--artefact|file", "file"),
    ("reindex|--batch|-1", "--batch"),
    ("generations|activate|first", "ID"),
    ("generations|prune|--keep|0", "--keep"),
    ("index|compare|--plot|plot.png", "plot.png"),
    ("pairs|--min-jaccard|2", "--min-jaccard"),
    ("triplets|--split|half", "--split"),
    ("triplets|--limit|-1", "--limit"),
    (f"triplets|--limit|{HUGE}", "--limit"),
    (f"eval|--max-queries|{HUGE}", "--max-queries"),
    (f"index|compare|--sample|{HUGE}", "--sample"),
    (f"index|compare|--queries|{HUGE}", "--queries"),
    (f"export|--run|{HUGE}", "--run"),
    ("train|--steps|0", "--steps"),
    ("train|--loss|magic", "magic"),
    ("tune|--trials|0", "--trials"),
    ("export|--encoder|minilm|--precision|fp8", "fp8"),
    ("sources|forget", "NAME"),
    ("serve|--port|99999", "--port"),
    ("serve|--token-file|nowhere", "nowhere"),
    ("quickstart|file", "file"),
    ("quickstart|--quick|--thorough", "exclude each other"),
    ("db|start|now", "now"),
    ("encoders|minilm", "minilm"),
]
FAILURES = [
    ("ingest|nowhere", "nowhere does not exist"),
    ("ingest|code|--exclude|!", "'!'"),
    ("ingest|code|--name|", "''"),
    (f"ingest|code|--name|{BAD_BYTES}", r"'a\udcff'"),
    (f"ingest|{BAD_BYTES}", r"a\udcff"),
    (f"search|{BAD_BYTES}", r"'a\udcff'"),
    ("search|  ", "empty"),
    ("search|--like|code", "'code'"),
    ("search|--like|nowhere.py:3", "nowhere.py:3"),
    ("search|x|--generation|77", "77"),
    (f"search|x|--generation|{HUGE}", HUGE),
    ("migrate|--down|base|--dsn|nonsense", "connection string"),
    ("generations|activate|77", "77"),
    ("generations|rollback", "no generation to go back to"),
    ("sources|forget|shop", "'shop'"),
    ("reindex|--artefact|empty", "encoder.json"),
    ("export|--encoder|magic", "'magic'"),
    ("export|--checkpoint|file", "'file'"),
    ("export|--checkpoint|empty", "modules.json"),
    ("export|--run|77", "77"),
    ("export|--encoder|minilm|--out|file", "file is no folder"),
    ("export|--encoder|minilm|--out|code", "code holds other files"),
    ("train|--base|magic", "'magic'"),
    ("eval|--dataset|nowhere", "nowhere"),
    ("eval|--dataset|empty", "empty"),
    ("eval|--generation|77", "77"),
    ("eval|--report|code", "code"),
    ("eval|--report|nowhere/report.html", "nowhere"),
    ("index|compare|--plot|nowhere/plot.svg", "nowhere"),
    ("index|compare|--plot|folder.svg", "folder.svg"),
    ("serve|--host|nowhere.invalid", "nowhere.invalid"),
    ("serve|--host|0.0.0.0", "no token"),
    ("serve|--token-file|file", "16 characters"),
    ("quickstart|empty", "empty"),
]
DSNS = [
    ("", "--dsn is empty"),
    ("nonsense", "cannot be read"),
    ("sqlite:///shop.db", "cannot be read"),
    ("postgresql://127.0.0.1:99999/shop", "99999"),
    ("postgresql://nowhere.invalid/shop", "nowhere.invalid"),
    ("host=/nowhere dbname=shop", "/nowhere"),
    ("host=127.0.0.1 port=1 dbname=shop", "port=1"),
    ("service=nowhere", "nowhere"),
    ("postgresql://127.0.0.1:1/shop?sslmode=maybe", "maybe"),
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where the person stands."""
    for folder in ("code", "empty", "folder.svg"):
        (tmp_path / folder).mkdir()
    (tmp_path / "code" / "shop.py").write_text("def buy():\n    return 1\n")
    (tmp_path / "file").write_text("short")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PGEMBED_HOME", str(tmp_path / "home"))
    return tmp_path


def ends(outcome: Outcome, code: int, said: str) -> None:
    """Assert that a command ended so, with nothing on standard output, and said `said` in a few lines."""
    shown = " ".join(outcome.stderr.replace("│", " ").split())
    assert (outcome.code, outcome.stdout) == (code, ""), outcome
    assert said in shown
    assert "Traceback" not in shown
    assert len(outcome.stderr.splitlines()) < 15


@pytest.mark.parametrize(("arguments", "said"), WRONG_USAGE)
def test_wrong_usage(arguments: str, said: str, place: Path, searchable: psycopg.Connection, database_url: str,
                     monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("PGEMBED_DSN", database_url)
    ends(pgembed(*arguments.split("|")), 2, said)


@pytest.mark.parametrize(("arguments", "said"), FAILURES)
def test_what_cannot_be_done(arguments: str, said: str, place: Path, searchable: psycopg.Connection, database_url: str,
                             monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("PGEMBED_DSN", database_url)
    ends(pgembed(*arguments.split("|")), 1, said)


@pytest.mark.parametrize(("dsn", "said"), DSNS)
def test_a_wrong_connection_string(dsn: str, said: str) -> None:
    ends(pgembed("status", "--dsn", dsn), 1, said)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


def test_a_port_in_use(taken: int, searchable: psycopg.Connection, database_url: str) -> None:
    ends(pgembed("serve", "--port", str(taken), "--dsn", database_url), 1, f"127.0.0.1:{taken}")


def test_a_home_that_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGEMBED_DSN", raising=False)
    with tempfile.TemporaryDirectory(prefix="pgembed-tests-") as folder:
        Path(folder).chmod(0o755)  # as root the server runs as another user, which must be able to pass
        (Path(folder) / "file").touch()
        monkeypatch.setenv("PGEMBED_HOME", f"{folder}/file")
        for command in (["status"], ["db", "start"]):
            ends(pgembed(*command), 1, f"{folder}/file")


def test_stopping_what_does_not_run(place: Path) -> None:
    for _ in range(2):
        outcome = pgembed("db", "stop")
        assert (outcome.code, outcome.stderr) == (0, "")
        assert "No server was running" in outcome.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_a_folder_that_cannot_be_read(place: Path, database_url: str) -> None:
    (place / "code").chmod(0)
    outcome = pgembed("ingest", "code", "--dsn", database_url)
    (place / "code").chmod(0o755)
    assert outcome.code == 0
    assert "left out, unreadable: 1" in outcome.stdout


def test_real_processes_end_in_a_message_too(place: Path, database_url: str) -> None:
    """As a shell runs them: bytes that are no text, a locale without UTF-8, no standard input, an interrupt at once."""
    environment = {**os.environ, "PGEMBED_DSN": database_url, "LC_ALL": "C", "PYTHONUTF8": "0"}
    for arguments in ([b"search", b"a\xff"], [b"ingest", b"a\xff"], [b"search", "größe".encode(), b"--mode", b"magic"]):
        done = subprocess.run(
            [sys.executable.encode(), b"-m", b"pgembed", *arguments],
            capture_output=True, stdin=subprocess.DEVNULL, env=environment, check=False,
        )  # fmt: skip
        assert done.returncode in (1, 2)
        assert done.stderr != b""
        assert b"Traceback" not in done.stderr


def test_an_interrupt_while_it_starts(place: Path) -> None:
    # Python tells of each module that was imported: this one is among the first of the command line's
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "pgembed", "--help"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.endswith(" typer.models\n"):
            process.send_signal(signal.SIGINT)
            break
    printed, said = process.communicate(timeout=60)
    assert (process.returncode, printed) == (130, "")
    assert "Traceback" not in said
