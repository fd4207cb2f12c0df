import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pgembed.encoders.folder import folder_spec
from pgembed.encoders.presets import preset
from pgembed.encoders.source import resolve_spec
from pgembed.encoders.weights import file_sha256, fingerprint, locate, make_ready
from pgembed.errors import EncoderError


def encoder_file(folder: Path, **values: Any) -> Path:
    path = folder / "ours.json"
    path.write_text(json.dumps(values))
    return path


def test_a_preset_is_taken_with_weights_from_the_disk(tmp_path: Path) -> None:
    path = encoder_file(tmp_path, preset="qodo-jina", weights={"qodo": "/models/qodo", "jina-v3": "jina"}, name="ours")
    spec = resolve_spec(path)
    assert spec.name == "ours"
    assert [tower.weights for tower in spec.towers] == ["folder:/models/qodo", f"folder:{tmp_path / 'jina'}"]
    published = preset("qodo-jina")
    assert [replace(t, weights="") for t in spec.towers] == [replace(t, weights="") for t in published.towers]


def test_how_much_each_tower_counts_may_be_said(tmp_path: Path) -> None:
    spec = resolve_spec(encoder_file(tmp_path, preset="qodo-jina", tower_weights={"jina-v3": 0.25}))
    assert {tower.name: tower.weight for tower in spec.towers} == {"qodo": 1.0, "jina-v3": 0.25}
    equal = resolve_spec(encoder_file(tmp_path, preset="qodo-jina"))
    assert [replace(tower, weight=1.0) for tower in spec.towers] == list(equal.towers)


def test_towers_may_be_described_in_full(tmp_path: Path) -> None:
    (tower,) = preset("minilm").to_json()["towers"]
    spec = resolve_spec(encoder_file(tmp_path, towers=[{**tower, "weights": "folder:mine"}]))
    assert (spec.name, spec.towers[0].weights) == ("ours", f"folder:{tmp_path / 'mine'}")


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"preset": "nothing"}, "nor a known encoder"),
        ({"weights": {}}, "nor a known encoder"),
        ({"preset": "qodo", "weights": {"jina": "/x"}}, "gives weights for jina"),
        ({"preset": "qodo", "revision": "main"}, "unknown fields: revision"),
        ({"preset": "qodo", "tower_weights": {"jina": 1}}, "gives weights for jina"),
        ({"preset": "qodo", "tower_weights": {"qodo": "1"}}, "a tower's weight is a number"),
        ({"preset": "qodo", "tower_weights": {"qodo": True}}, "a tower's weight is a number"),
        ({"preset": "qodo", "tower_weights": {"qodo": -1}}, "weight and max_tokens must be positive"),
        ({"towers": [{"name": "a"}]}, "no description of an encoder"),
    ],
)
def test_an_encoder_file_that_cannot_be_meant_is_refused(
    tmp_path: Path, values: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(EncoderError, match=complaint):
        resolve_spec(encoder_file(tmp_path, **values))


def test_a_declared_hash_is_held_against_the_file(tiny_model: Path) -> None:
    spec = folder_spec(tiny_model)
    right = {"model.safetensors": file_sha256(tiny_model / "model.safetensors")}
    assert make_ready(replace(spec, towers=(replace(spec.towers[0], sha256=right),))) == [tiny_model]
    for wrong in ({"model.safetensors": "0" * 64}, {"not-there.safetensors": "0" * 64}):
        with pytest.raises(EncoderError, match="is not the file that is declared"):
            make_ready(replace(spec, towers=(replace(spec.towers[0], sha256=wrong),)))


def test_the_fingerprint_counts_what_decides_a_vector(tiny_jina_native: Path) -> None:
    spec = folder_spec(tiny_jina_native)
    (tower,) = spec.towers
    folders = [locate(tower)]
    first = fingerprint(spec, folders)
    for changed in (
        replace(tower, passage_adapter="retrieval.query"), replace(tower, query_prompt="Q: "),
        replace(tower, end_of_text="</s>"), replace(tower, dimensions=16), replace(tower, causal=True),
    ):  # fmt: skip
        assert fingerprint(replace(spec, towers=(changed,)), folders) != first
    for same in (replace(tower, licence_note="x"), replace(tower, sha256={"a": "b"}), replace(tower, name="other")):
        assert fingerprint(replace(spec, towers=(same,)), folders) == first
    adapter = tiny_jina_native / "retrieval_query" / "adapter_model.safetensors"
    before = adapter.read_bytes()
    adapter.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        assert fingerprint(spec, folders) != first
    finally:
        adapter.write_bytes(before)


def test_the_fingerprint_of_an_encoder_without_adapters_is_as_it_always_was(tiny_model: Path) -> None:
    """Rows of `encoders` are found again by it: what a spec did not say before must not change it now."""
    import hashlib

    spec = folder_spec(tiny_model)
    values = {
        "dimensions": 32, "slot": 2560, "pooling": "mean", "causal": False, "max_tokens": 64, "weight": 1.0,
        "query_prompt": "", "passage_prompt": "",
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps({"towers": [values]}, sort_keys=True).encode())
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        digest.update(file_sha256(tiny_model / name).encode())
    assert fingerprint(spec, [tiny_model]) == digest.hexdigest()
