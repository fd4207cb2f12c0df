"""Square brackets in what is shown are text: Rich would take them for markup, and drop them or stop at them."""

import dataclasses

import psycopg
import pytest
from fixtures_cli import pgembed

from pgembed.encoders import presets


def test_generations_show_names_and_errors_as_they_are(conn: psycopg.Connection, database_url: str) -> None:
    conn.execute(
        """WITH e AS (INSERT INTO pgembed.encoders (name, spec, fingerprint, licence)
                      VALUES ('[bold]', '{}', 'x', 'MIT') RETURNING id)
           INSERT INTO pgembed.generations (encoder_id, onnx_path, onnx_sha256, dims, error)
           SELECT id, '', '', 2560, '[/x]' FROM e"""
    )
    outcome = pgembed("generations", "list", "--dsn", database_url)
    assert outcome.code == 0
    assert "[bold]" in outcome.stdout
    assert "[/x]" in outcome.stdout


def test_encoders_show_which_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = presets.PRESETS["minilm"]
    tower = dataclasses.replace(spec.towers[0], weights="package:there_is_no_such_package/model")
    monkeypatch.setitem(presets.PRESETS, "minilm", dataclasses.replace(spec, towers=(tower,)))
    outcome = pgembed("encoders")
    assert outcome.code == 0
    assert "pip install 'pgembed-code[" in outcome.stdout
