import json
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from pgembed.cli.app import app
from pgembed.encoders.artefact import load_manifest
from pgembed.errors import EncoderError


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_train_then_export_as_a_person_would(
    triplets: psycopg.Connection, database_url: str, home: Path, tiny_model: Path
) -> None:
    train = ("train", "--base", str(tiny_model), "--view", "made_up_triplets", "--steps", "3", "--batch", "8",
             "--dsn", database_url)  # fmt: skip
    trained = json.loads(run(*train, "--json"))
    assert (trained["steps"], trained["available"], trained["already_done"]) == (3, 32, False)
    told = run(*train)
    assert "was done already" in told
    assert "pgembed export" in told
    exported = json.loads(run("export", "--dsn", database_url, "--json"))
    assert exported["spec"]["name"] == f"run-{trained['run_id']}"
    assert Path(exported["path"]).parent == home / "models"
    assert load_manifest(Path(exported["path"])).fingerprint == exported["fingerprint"]
    assert "least cosine" in run("export", "--run", str(trained["run_id"]), "--dsn", database_url)


def test_a_folder_is_exported_without_a_database(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    assert "tiny" in run("export", "--checkpoint", str(tiny_model), "--out", str(tmp_path / "out"))
    assert load_manifest(tmp_path / "out").spec.name == "tiny"


def test_wrong_usage_is_told_from_failure(home: Path) -> None:
    invoke = CliRunner().invoke
    assert invoke(app, ["train", "--loss", "hinge"]).exit_code == 2
    assert invoke(app, ["export", "--run", "1", "--encoder", "minilm"]).exit_code == 2
    with pytest.raises(EncoderError, match="neither an encoder known by name"):
        invoke(app, ["export", "--encoder", "there-is-none"], catch_exceptions=False)
