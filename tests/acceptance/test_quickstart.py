"""`pgembed quickstart` as a person runs it, and interrupts it: real processes, real kills, a tiny model."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgembed.vectors.generations import active_id

README = Path(__file__).resolve().parents[2] / "README.md"
PACKAGES = (
    "asyncio",
    "concurrent",
    "email",
    "html",
    "http",
    "importlib",
    "logging",
    "multiprocessing",
    "unittest",
    "xml",
)


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some packages of the standard library, in a folder of their own."""
    folder = tmp_path_factory.mktemp("code") / "library"
    library = Path(logging.__file__).parents[1]
    for name in PACKAGES:
        shutil.copytree(library / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "test*"))
    return folder


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tiny_model: Path, code: Path, tmp_path: Path) -> Start:
    """A function that starts a quick quickstart with the tiny model on a database."""

    def run(dsn: str, *arguments: str, home: str = "home", path: Path = code) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pgembed", "quickstart", str(path), "--quick", "--base", str(tiny_model)]
        return subprocess.Popen(
            [*command, "--dsn", dsn, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PGEMBED_HOME": str(tmp_path / home), "COLUMNS": "120"},
        )

    return run


def _finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def _interrupt_at(process: subprocess.Popen[str], heading: str, number: signal.Signals) -> str:
    """Send the signal when the step begins; return what the process said on standard error."""
    assert process.stdout is not None
    for line in process.stdout:
        if heading in line and not line.startswith("An earlier run"):
            process.send_signal(number)
            break
    else:
        raise AssertionError(f"the step {heading!r} never began")
    return process.communicate(timeout=60)[1]


def _contents(dsn: str) -> dict[str, Any]:
    """Return what must be the same however often a run was interrupted."""
    with psycopg.connect(dsn) as conn:

        def rows(statement: str) -> list[Any]:
            return conn.execute(statement).fetchall()  # type: ignore[call-overload]

        return {
            "chunks": rows("SELECT encode(sha256, 'hex') FROM pgembed.code_chunks ORDER BY 1"),
            "pairs": rows("SELECT count(*), sum(intersection) FROM pgembed.candidate_pairs"),
            "triplets": rows(
                "SELECT ordinal, kind, split, anchor, positive, negative FROM pgembed.triplets ORDER BY 1"
            ),
            "encoders": rows("SELECT fingerprint FROM pgembed.encoders ORDER BY 1"),
            "losses": rows("SELECT step, loss, gradient_norm FROM pgembed.training_metrics ORDER BY 1"),
            "rows": rows("SELECT row_count FROM pgembed.generations ORDER BY 1"),
            "vectors": rows(
                "SELECT count(*), count(DISTINCT chunk_id) FROM pgembed.code_embeddings WHERE generation_id ="
                " (SELECT generation_id FROM pgembed.active_generation)"
            ),
            "scores": rows("SELECT metrics -> 'ndcg@10' FROM pgembed.evaluations ORDER BY encoder_id, id"),
        }


def test_killed_and_interrupted_it_goes_on_to_what_a_straight_run_gives(
    start: Start, empty_database_url: str, database_url: str
) -> None:
    told = _interrupt_at(start(database_url), "pairs and triplets", signal.SIGKILL)
    assert "Traceback" not in told
    told = _interrupt_at(start(database_url), "fine-tune", signal.SIGINT)
    assert "run the same command again" in told
    assert "Traceback" not in told
    _interrupt_at(start(database_url), "reindex --batch 512", signal.SIGKILL)
    outcome = json.loads(_finish(start(database_url, "--json")))

    straight = json.loads(_finish(start(empty_database_url, "--json", home="other")))
    assert _contents(database_url) == _contents(empty_database_url)
    for measured in ("metrics", "fingerprint", "queries", "documents"):
        for side in ("baseline", "candidate"):
            assert outcome["comparisons"][0][side][measured] == straight["comparisons"][0][side][measured]
    assert outcome["chunks"] > 500
    assert outcome["generation"]["state"] == "active"
    assert outcome["generation"]["index_recall"] >= 0.95
    assert [len(search["hits"]) for search in outcome["searches"]] == [3, 3, 3]

    # and once more: nothing is left to do
    again = json.loads(_finish(start(database_url, "--json")))
    assert {name for name, step in again["steps"].items() if not step["skipped"]} == {"start the server", "search"}
    assert again["comparisons"][0]["tests"] == outcome["comparisons"][0]["tests"]
    assert again["generation"]["id"] == outcome["generation"]["id"]


def test_the_last_table_tells_what_was_asked_and_what_the_readme_prints_runs(start: Start, database_url: str) -> None:
    out = _finish(start(database_url))
    assert "about" in out.split("\n", 1)[0]
    for wanted in ("ndcg@10", "mrr@10", "recall@10", "lists probed", "chunks", "/s", "answers", ":8421/"):
        assert wanted in out.split("what each step took")[1]
    assert out.count('pgembed search "') >= 3

    blocks = re.findall(r"^```sql\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 7
    assert sum("pgembed.triplets" in block for block in blocks) == 4
    with psycopg.connect(database_url) as conn:
        for block in blocks:
            assert conn.execute(block).fetchall(), block  # type: ignore[call-overload]

    (program,) = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    environment = {**os.environ, "PGEMBED_DSN": database_url}
    command = [sys.executable, "-c", program]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert len(printed.splitlines()) == 10


def test_two_at_once_do_not_disturb_each_other(start: Start, database_url: str) -> None:
    first = start(database_url)
    assert first.stdout is not None
    assert any("ingest" in line for line in first.stdout)
    _, err = start(database_url).communicate(timeout=60)
    assert "Another quickstart is at work" in err
    assert "Traceback" not in err
    first.kill()
    first.communicate()


def test_with_too_little_to_learn_from_the_base_model_answers(start: Start, database_url: str, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for name in ("decoder", "encoder"):
        shutil.copy(Path(json.__file__).parent / f"{name}.py", few)
    outcome = json.loads(_finish(start(database_url, "--json", path=few)))
    assert "Fine-tuning was left out" in outcome["verdict"]
    assert outcome["comparisons"] == []
    with psycopg.connect(database_url) as conn:
        assert active_id(conn) == outcome["generation"]["id"]
        assert conn.execute("SELECT count(*) FROM pgembed.training_runs").fetchone() == (0,)


def test_a_second_source_is_searched_by_its_own_questions(start: Start, database_url: str, tmp_path: Path) -> None:
    first = json.loads(_finish(start(database_url, "--json")))
    other = tmp_path / "other"
    shutil.copytree(Path(json.__file__).parents[1] / "tkinter", other, ignore=shutil.ignore_patterns("test*"))
    second = json.loads(_finish(start(database_url, "--json", path=other)))
    with psycopg.connect(database_url) as conn:
        row = conn.execute("SELECT count(*) FROM pgembed.code_chunks").fetchone()
    assert row is not None
    assert row[0] > first["chunks"] + 100
    # whichever model won, the generation that answers has every chunk of both
    assert second["generation"]["row_count"] == row[0]
    hits = [hit for search in second["searches"] for hit in search["hits"]]
    assert {hit["source"] for hit in hits} == {"other"}
    assert not {search["query"] for search in first["searches"]} & {search["query"] for search in second["searches"]}


def test_wrong_paths_are_wrong_usage_and_an_empty_folder_is_an_error(
    start: Start, database_url: str, tmp_path: Path
) -> None:
    missing = start(database_url, path=tmp_path / "nowhere")
    assert "does not exist" in re.sub(r"[\s│]+", " ", missing.communicate()[1])
    assert missing.returncode == 2
    (tmp_path / "empty").mkdir()
    empty = start(database_url, path=tmp_path / "empty")
    assert "no file of code" in empty.communicate()[1]
    assert empty.returncode == 1
    unknown = start(database_url, "--base", "nosuch")
    out, err = unknown.communicate()
    assert "'nosuch' is neither an encoder known by name" in err
    assert unknown.returncode == 1
    assert "ingest" not in out
