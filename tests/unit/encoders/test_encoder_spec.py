import subprocess
import sys

import pytest

from pgembed.encoders.presets import PLANNED, PRESETS, preset
from pgembed.encoders.spec import EncoderSpec, TowerSpec
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


@pytest.mark.parametrize("name", PLANNED)
def test_a_planned_preset_says_that_it_cannot_be_loaded_and_why(name: str) -> None:
    with pytest.raises(EncoderError, match=r"Qodo-Embed-1-1\.5B.*not implemented"):
        preset(name)


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
    values["towers"][0]["adapter"] = "x"
    with pytest.raises(EncoderError, match="adapter"):
        EncoderSpec.from_json(values)


def test_encoders_import_neither_torch_nor_transformers_nor_onnxruntime() -> None:
    program = (
        "import importlib, pkgutil, sys, pgembed.encoders as e\n"
        "for m in pkgutil.iter_modules(e.__path__): importlib.import_module('pgembed.encoders.' + m.name)\n"
        "print(sorted({'torch', 'transformers', 'onnxruntime', 'tokenizers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
