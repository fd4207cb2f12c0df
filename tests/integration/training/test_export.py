import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fixtures_encoders import make_tiny_model

from pgembed.encoders.artefact import load_manifest
from pgembed.encoders.folder import folder_spec
from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.encoders.spec import EncoderSpec
from pgembed.errors import EncoderError, ExportError
from pgembed.training.export import check_parity, export_encoder, gather_weights, write_graph
from pgembed.training.model import load_model, pool

TEXTS = ["def f(x): return x", "", "open the file and read every line of it " * 10]


def test_the_same_model_is_exported_once(tiny_model: Path, tmp_path: Path) -> None:
    first = export_encoder(tiny_model, tmp_path / "out")
    changed_at = first.model_path.stat().st_mtime_ns
    assert export_encoder(tiny_model, tmp_path / "out") == first == load_manifest(tmp_path / "out")
    assert first.model_path.stat().st_mtime_ns == changed_at
    assert first.parity["least_cosine"] > 0.999999
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_damaged_or_another_export_is_replaced(tiny_model: Path, tmp_path: Path) -> None:
    first = export_encoder(tiny_model, tmp_path / "out")
    first.model_path.write_bytes(b"broken")
    assert export_encoder(tiny_model, tmp_path / "out").files == first.files
    load_manifest(tmp_path / "out")
    other = export_encoder(make_tiny_model(tmp_path / "other", seed=2), tmp_path / "out")
    assert other.fingerprint != first.fingerprint
    assert load_manifest(tmp_path / "out").fingerprint == other.fingerprint


def test_what_is_no_export_is_never_replaced(tiny_model: Path, tmp_path: Path) -> None:
    work, file = tmp_path / "work", tmp_path / "notes"
    work.mkdir()
    for mine in (work / "thesis.tex", file):
        mine.write_text("mine")
    for out in (work, file):
        with pytest.raises(ExportError, match="the export would replace it"):
            export_encoder(tiny_model, out)
    assert [path.read_text() for path in (work / "thesis.tex", file)] == ["mine", "mine"]
    assert {path.name for path in tmp_path.iterdir()} == {"work", "notes"}


def test_a_graph_of_other_weights_fails_the_parity_check(tiny_encoder: Path, tmp_path: Path) -> None:
    other = load_model(replace(folder_spec(make_tiny_model(tmp_path / "other", seed=2)), name="tiny"))
    shutil.copytree(tiny_encoder, tmp_path / "artefact")
    (tmp_path / "artefact" / "tokenizer-tiny.json").rename(tmp_path / "artefact" / "tokenizer-other.json")
    with pytest.raises(ExportError, match=r"cosine -?0\.\d+ .*largest difference"):
        check_parity(other, tmp_path / "artefact")


def test_a_failed_export_leaves_nothing(tiny_model: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(EncoderError, match=r"lack encoder\.layer\.2"):
        export_encoder(model, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_is_neither_preset_nor_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="neither an encoder known by name"):
        export_encoder("no-such", tmp_path / "out")


def test_weights_beside_the_graph_are_gathered_in_one_file(tiny_model: Path, tmp_path: Path) -> None:
    """Beyond 2 GB the exporter writes a file for each weight; here they are scattered on purpose."""
    model = load_model(folder_spec(tiny_model))
    path = tmp_path / "model.onnx"
    write_graph(model, path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    feed = {"input_ids": np.array([[5, 6, 7]]), "attention_mask": np.ones((1, 3), dtype=np.int64)}
    (expected,) = onnxruntime.InferenceSession(str(path)).run(None, feed)
    graph = onnx.load(path)
    onnx.save_model(graph, path, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0)
    scattered = set(tmp_path.iterdir()) - {path}
    assert len(scattered) > 10
    gather_weights(path)
    for file in scattered:
        file.unlink()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    (found,) = onnxruntime.InferenceSession(str(path)).run(None, feed)
    np.testing.assert_array_equal(found, expected)


def test_cosine_of_two_towers_is_the_weighted_mean_of_theirs(tmp_path: Path) -> None:
    parts, alone = [], []
    for seed, slot, weight in ((1, 1536, 1.0), (2, 1024, 0.5)):
        single = folder_spec(make_tiny_model(tmp_path / f"m{seed}", seed=seed))
        parts.append(replace(single.towers[0], slot=slot, weight=weight))
        encoder = OnnxEncoder.load(export_encoder(single, tmp_path / f"a{seed}").path, threads=1)
        alone.append(encoder.embed(TEXTS, role="passage"))
    pair = export_encoder(EncoderSpec("pair", tuple(parts)), tmp_path / "pair")
    together = OnnxEncoder.load(pair.path, threads=1).embed(TEXTS, role="passage")
    cosines = [vectors @ vectors.T for vectors in alone]
    np.testing.assert_allclose(together @ together.T, (cosines[0] + 0.25 * cosines[1]) / 1.25, atol=1e-5)
    assert together[:, 1536 : 1536 + 32].any()
    assert not together[:, 32:1536].any()


@pytest.mark.parametrize("how", ["mean", "cls", "last"])
def test_pooling_takes_real_tokens_only(how: str) -> None:
    rows = [torch.randn(length, 5) for length in (4, 1, 7)]
    hidden, mask = torch.full((3, 7, 5), 1e3), torch.zeros(3, 7, dtype=torch.long)
    for n, row in enumerate(rows):
        hidden[n, : len(row)], mask[n, : len(row)] = row, 1
    expected = {"mean": [r.mean(0) for r in rows], "cls": [r[0] for r in rows], "last": [r[-1] for r in rows]}[how]
    torch.testing.assert_close(pool(hidden, mask, how), torch.stack(expected))
