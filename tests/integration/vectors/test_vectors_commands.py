"""`pgembed reindex`, `generations` and `search` as a person or a script runs them, with a real encoder."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import Result
from fixtures_encoders import make_tiny_model
from fixtures_vectors import Code, add_code
from typer.testing import CliRunner

from pgembed.cli.app import app
from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.errors import EncoderError, GenerationError, PgembedError, SearchError

Run = Callable[..., Result]
TEXTS = [f"def {verb}_{noun}():\n    return {noun}" for verb in ("read", "write", "sort") for noun in ("file", "row")]


@pytest.fixture
def artefact(tiny_encoder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny encoder, of this test alone."""
    return Path(shutil.copytree(tiny_encoder, tmp_path / "models" / "tiny"))


@pytest.fixture(scope="session")
def other_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another tiny encoder, exported."""
    from pgembed.training.export import export_encoder

    model = make_tiny_model(tmp_path_factory.mktemp("models") / "other", seed=2)
    return export_encoder(model, tmp_path_factory.mktemp("artefacts") / "other").path


@pytest.fixture
def run(
    conn: psycopg.Connection, database_url: str, artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """A function that runs `pgembed` on a database with six functions, and with the encoder at hand."""
    monkeypatch.setenv("PGEMBED_HOME", str(tmp_path))
    add_code(conn, [Code(text, places=(("here", f"src/{n}.py"),)) for n, text in enumerate(TEXTS)])

    def run_command(*arguments: object) -> Result:
        return CliRunner().invoke(app, [*map(str, arguments), "--dsn", database_url])

    return run_command


def _json(result: Result) -> Any:
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def _error(result: Result, kind: type[PgembedError]) -> str:
    assert result.exit_code == 1
    assert isinstance(result.exception, kind), result.exception
    return str(result.exception)


def test_reindex_activate_and_search_in_json(run: Run, artefact: Path) -> None:
    result = _json(run("reindex", "--activate", "--json"))
    assert {key: result[key] for key in ("generation_id", "encoder", "state", "kind", "rows", "embedded")} == {
        "generation_id": 1, "encoder": "tiny", "state": "active", "kind": "new", "rows": 6, "embedded": 6,
    }  # fmt: skip
    assert result["chunks_per_second"] > 0
    hits = _json(run("search", TEXTS[2], "--mode", "vector", "--json"))
    vectors = OnnxEncoder.load(artefact, threads=1).embed(TEXTS, role="passage")
    scores = vectors @ vectors[2]
    assert [hit["content"] for hit in hits] == [TEXTS[n] for n in (-scores).argsort()]
    assert [hit["score"] for hit in hits] == pytest.approx(sorted(scores, reverse=True), abs=1e-5)
    assert (hits[0]["rank"], hits[0]["path"], hits[0]["source"]) == (1, "src/2.py", "here")
    assert [hit["path"] for hit in _json(run("search", "x", "--path", "src/4*", "--json"))] == ["src/4.py"]
    assert len(_json(run("search", "x", "-k", 2, "--exact", "--json"))) == 2
    assert _json(run("search", "x", "--path", "nowhere", "--json")) == []


def test_commands_tell_a_person_the_same(run: Run, conn: psycopg.Connection) -> None:
    assert "There is no generation yet" in run("generations", "list").stdout
    told = run("reindex").stdout
    assert "Embedded 6 chunks with tiny" in told
    assert "pgembed generations activate 1" in told
    assert "Generation 1 answers searches." in run("generations", "activate", 1).stdout
    assert "Every chunk had its vector already." in run("reindex").stdout
    conn.execute("UPDATE pgembed.code_chunks SET content = content || '\x1b[31m'")
    shown = run("search", "read the file", "--k", 3).stdout
    assert "src/0.py:" in shown
    assert "\x1b[31m" not in shown
    assert "No chunk passes these filters." in run("search", "x", "--path", "nowhere").stdout
    assert "There was nothing to drop." in run("generations", "prune").stdout


def test_generations_are_listed_activated_rolled_back_and_pruned_in_json(
    run: Run, other_encoder: Path, conn: psycopg.Connection
) -> None:
    assert _json(run("generations", "list", "--json")) == []
    _json(run("reindex", "--activate", "--json"))
    assert _json(run("reindex", "--artefact", other_encoder, "--index", "hnsw", "--json"))["generation_id"] == 2
    assert _json(run("generations", "activate", 2, "--json")) == {"active": 2, "previous": 1}
    listed = _json(run("generations", "list", "--json"))
    assert [(row["id"], row["state"], row["index_method"], row["is_previous"]) for row in listed] == [
        (1, "retired", "ivfflat", True), (2, "active", "hnsw", False),
    ]  # fmt: skip
    add_code(conn, ["def late(): pass"])
    # without a choice it is the active generation's encoder that embeds what is new
    assert _json(run("reindex", "--json"))["generation_id"] == 2
    assert _json(run("generations", "rollback", "--json")) == {"active": 1, "previous": 2, "missing": 1}
    assert "Generation 2 answers searches again." in run("generations", "rollback").stdout
    assert "1 chunks that came since have no vector in it" in run("generations", "rollback").stdout
    assert "2 is the one that rollback goes back to" in _error(run("generations", "prune", 2), GenerationError)
    assert _json(run("generations", "prune", 2, "--include-previous", "--json")) == {"dropped": [2]}
    assert "no generation to go back to" in _error(run("generations", "rollback", "--json"), GenerationError)


def test_activation_with_missing_chunks_fails_and_force_overrides(run: Run, conn: psycopg.Connection) -> None:
    _json(run("reindex", "--json"))
    add_code(conn, ["def late(): pass"])
    assert "1 chunks have no vector" in _error(run("generations", "activate", 1, "--json"), GenerationError)
    assert _json(run("generations", "activate", 1, "--force", "--json")) == {"active": 1, "previous": None}


def test_a_changed_artefact_is_refused_by_search_and_by_activation(
    run: Run, artefact: Path, other_encoder: Path
) -> None:
    _json(run("reindex", "--json"))
    graph = artefact / "model.onnx"
    original = graph.read_bytes()
    graph.write_bytes(original + b"\0")
    assert "sha256 differs" in _error(run("generations", "activate", 1), GenerationError)
    assert "sha256 differs" in _error(run("search", "x", "--generation", 1), EncoderError)
    # a whole other encoder in its place
    shutil.rmtree(artefact)
    shutil.copytree(other_encoder, artefact)
    assert "is not the one that made its vectors" in _error(run("generations", "activate", 1), GenerationError)
    told = _error(run("search", "x", "--generation", 1), SearchError)
    assert "is not the one that made generation 1" in told
    assert str(artefact) in told


def test_a_lost_artefact_is_named_by_search_and_a_reindex_from_elsewhere_mends_it(
    run: Run, artefact: Path, tmp_path: Path
) -> None:
    _json(run("reindex", "--activate", "--json"))
    moved = artefact.rename(tmp_path / "moved")
    told = _error(run("search", "x"), SearchError)
    assert f"there is no folder {artefact}" in told
    assert "pgembed reindex --artefact" in told
    assert f"there is no folder {artefact}" in _error(run("reindex"), GenerationError)
    result = _json(run("reindex", "--artefact", moved, "--json"))
    assert (result["generation_id"], result["embedded"], result["state"]) == (1, 0, "active")
    assert len(_json(run("search", "x", "--json"))) == 6


def test_without_an_encoder_or_with_an_unknown_one_it_says_how_to_get_one(run: Run, artefact: Path) -> None:
    told = _error(run("reindex", "--encoder", "huge"), GenerationError)
    assert "no exported encoder 'huge'" in told
    assert "there are: tiny" in told
    shutil.rmtree(artefact)
    assert "pgembed export" in _error(run("reindex"), GenerationError)


def test_an_empty_artefact_folder_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "is not an exported encoder" in _error(run("reindex", "--artefact", tmp_path / "empty"), EncoderError)


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "x", "-k", "0"),
        ("search",),
        ("search", "x", "--generation", "one"),
        ("reindex", "--batch", "0"),
        ("reindex", "--recall", "1.5"),
        ("reindex", "--index", "gin"),
        ("reindex", "--artefact", "absent"),
        ("generations", "activate"),
        ("generations", "prune", "--keep", "0"),
    ],
)
def test_wrong_usage_is_exit_code_two(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_artefact_and_encoder_together_are_wrong_usage(run: Run, artefact: Path) -> None:
    assert run("reindex", "--artefact", artefact, "--encoder", "tiny").exit_code == 2


def test_the_program_itself_reports_errors_in_a_line_and_exits_with_one(
    run: Run, database_url: str, tmp_path: Path
) -> None:
    def search(*arguments: str | bytes) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pgembed", "search", "--json", "--dsn", database_url, *arguments],
            capture_output=True, text=True, check=False, env={**os.environ, "PGEMBED_HOME": str(tmp_path)},
        )  # fmt: skip

    nothing = search("x")
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert nothing.stderr.startswith("Error: No generation is active")
    _json(run("reindex", "--activate", "--json"))
    for text in ("'; DROP TABLE pgembed.code_chunks; --", '"', "a" * 100_000, "-- \x1b[31m"):
        found = search("--", text)
        assert len(json.loads(found.stdout)) == 6, found.stderr
    for text in (" ", b"caf\xe9"):
        refused = search(text)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.startswith("Error: The text ")
        assert "Traceback" not in refused.stderr
