import subprocess
import sys
from dataclasses import replace

import pytest

from pgembed.encoders.hub import parse_place
from pgembed.encoders.presets import PRESETS, preset
from pgembed.encoders.spec import ROLES, EncoderSpec, TowerSpec
from pgembed.errors import EncoderError


def tower(**changes: object) -> TowerSpec:
    values: dict[str, object] = {
        "name": "a", "weights": "folder:/x", "dimensions": 8, "slot": 2560, "pooling": "mean", "causal": False,
        "max_tokens": 16,
    }  # fmt: skip
    return TowerSpec(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_json(name: str) -> None:
    assert EncoderSpec.from_json(preset(name).to_json()) == preset(name)


def test_minilm_is_what_it_is_published_as() -> None:
    (minilm,) = preset("minilm").towers
    assert (minilm.dimensions, minilm.pooling, minilm.max_tokens, minilm.causal) == (384, "mean", 256, False)
    assert minilm.prompt("query") == minilm.prompt("passage") == ""


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_pinned_and_says_its_licence(name: str) -> None:
    for tower in preset(name).towers:
        assert tower.licence != "unknown"
        if tower.weights.startswith("hub:"):
            parse_place(tower.weights.removeprefix("hub:"))
        else:
            assert tower.weights.startswith("package:")


def test_the_production_presets_are_what_was_published() -> None:
    (alone,) = preset("qodo").towers
    qodo, jina = preset("qodo-jina").towers
    assert replace(alone, slot=1536) == qodo
    assert (qodo.dimensions, qodo.pooling, qodo.end_of_text) == (1536, "last", "<|endoftext|>")
    assert (jina.dimensions, jina.pooling, jina.causal) == (1024, "mean", False)
    assert [jina.adapter(role) for role in ROLES] == ["retrieval.query", "retrieval.passage"]
    assert jina.prompt("query").startswith("Represent the query")
    assert jina.prompt("passage").startswith("Represent the document")
    assert "commercial" in jina.licence_note
    assert (preset("qodo-jina").takes_role, preset("qodo").takes_role) == (True, False)


def test_an_unknown_preset_names_the_known() -> None:
    with pytest.raises(EncoderError, match="minilm"):
        preset("bert")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"pooling": "max"}, "pooling 'max'"),
        ({"dimensions": 3000}, "3000 dimensions"),
        ({"weight": 0.0}, "weight"),
        ({"max_tokens": 2}, "max_tokens"),
    ],
)
def test_a_tower_that_cannot_be_is_refused(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(EncoderError, match=complaint):
        tower(**changes)


def test_slots_must_fill_all_dimensions_and_names_differ() -> None:
    with pytest.raises(EncoderError, match="1000"):
        EncoderSpec("x", (tower(slot=1000),))
    with pytest.raises(EncoderError, match="same name"):
        EncoderSpec("x", (tower(slot=1536), tower(slot=1024)))


def test_a_description_with_an_unknown_field_is_refused() -> None:
    values = preset("minilm").to_json()
    values["towers"][0]["colour"] = "x"
    with pytest.raises(EncoderError, match="colour"):
        EncoderSpec.from_json(values)


def test_encoders_import_neither_torch_nor_transformers_nor_onnxruntime() -> None:
    program = (
        "import importlib, pkgutil, sys, pgembed.encoders as e\n"
        "for m in pkgutil.iter_modules(e.__path__): importlib.import_module('pgembed.encoders.' + m.name)\n"
        "print(sorted({'torch', 'transformers', 'onnxruntime', 'tokenizers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
