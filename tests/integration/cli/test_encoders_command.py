"""`pgembed encoders`: what there is by name, who brings it, and what stands in its way."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fixtures_cli import pgembed
from fixtures_plugins import Register

from pgembed.encoders.presets import PRESETS

SPEC = """
from pgembed.encoders.spec import EncoderSpec, TowerSpec

def make(name):
    tower = TowerSpec(name=name, weights="folder:/there/is/[no] such place", dimensions=24, slot=2560, pooling="cls",
                      causal=True, max_tokens=99, licence="MIT")
    return EncoderSpec(name, (tower,))

X = make("strange[r]")
"""


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGEMBED_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "80")


def _rows() -> list[dict[str, Any]]:
    outcome = pgembed("encoders", "--json")
    assert outcome.code == 0, outcome.stderr
    found: list[dict[str, Any]] = json.loads(outcome.stdout)
    return found


def test_built_in_ones_with_dimensions_limits_licence_and_weights() -> None:
    rows = {row["name"]: row for row in _rows()}
    assert rows.keys() == PRESETS.keys()
    minilm = rows["minilm"]
    assert (minilm["from"]["kind"], minilm["at_hand"], minilm["why_not"]) == ("built-in", True, None)
    tower = minilm["towers"][0]
    assert {key: tower[key] for key in ("dimensions", "pooling", "max_tokens", "licence")} == {
        "dimensions": 384, "pooling": "mean", "max_tokens": 256, "licence": "Apache-2.0",
    }  # fmt: skip
    assert sum(tower["dimensions"] for tower in rows["qodo-jina"]["towers"]) == 2560
    assert not rows["qodo-jina"]["at_hand"]
    assert rows["qodo-jina"]["why_not"]


def test_plugins_with_their_distribution_broken_ones_with_their_reason_and_exported_ones_with_their_place(
    register: Register, tiny_encoder: Path, tmp_path: Path
) -> None:
    register("stranger", "pgembed.encoders", {"x": "cli_stranger:X"}, version="4.5", cli_stranger=SPEC)
    register("wreck", "pgembed.encoders", {"y": "cli_wreck:Y"}, version="0.1", cli_wreck="import no_such_thing\n")
    shutil.copytree(tiny_encoder, tmp_path / "home" / "models" / "tiny")
    rows = {row["name"]: row for row in _rows()}
    stranger = rows["strange[r]"]
    assert stranger["from"] == {"kind": "plugin", "distribution": "stranger", "version": "4.5", "entry": "x"}
    assert "/there/is/[no] such place" in stranger["why_not"]
    assert rows["tiny"]["from"] == {"kind": "exported", "path": str(tmp_path / "home" / "models" / "tiny")}
    assert rows["tiny"]["at_hand"]
    assert "no_such_thing" in rows["y"]["why_not"]
    assert rows["y"]["towers"] == []

    outcome = pgembed("encoders")
    assert outcome.code == 0
    lines = outcome.stdout.splitlines()
    at = {line: n for n, line in enumerate(lines)}
    heading = at["From stranger 4.5"]
    (row,) = [line for line in lines if line.startswith("  strange[r]") and ":" not in line]
    assert row.split() == ["strange[r]", "24", "cls", "99", "MIT", "not", "at", "hand"]
    assert heading < at[row] < at["From wreck 0.1"]
    assert any("no_such_thing" in line and "pip uninstall" not in line for line in lines)
    assert any("pip uninstall wreck" in line for line in lines)
    # the table itself keeps to 80 columns; a reason may be longer, and the terminal folds it
    assert all(len(line) < 80 for line in lines if "at hand" in line or line.startswith("  encoder"))
