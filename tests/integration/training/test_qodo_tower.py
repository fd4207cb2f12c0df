"""A tower in the layout of Qodo-Embed-1-1.5B, against sentence-transformers' own modules over the same files."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from pgembed.encoders.artefact import Manifest
from pgembed.encoders.batching import pad
from pgembed.encoders.end_of_text import tower_tokenizer
from pgembed.encoders.folder import folder_spec
from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.encoders.spec import EncoderSpec, TowerSpec
from pgembed.errors import EncoderError
from pgembed.training.export import export_encoder, write_graph
from pgembed.training.model import load_model

END = "<|endoftext|>"
TEXTS = ["def add(a, b):\n    return a + b\n", "", "x", "open the file and read every line of it", "größer 🙂"]


@pytest.fixture(scope="module")
def exported(tiny_qodo: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return export_encoder(tiny_qodo, tmp_path_factory.mktemp("qodo") / "artefact")


@pytest.fixture(scope="module")
def reference(tiny_qodo: Path) -> Any:
    """sentence-transformers, which pads on the left here. It does not run the folder's code: nothing ends a text."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(tiny_qodo), device="cpu", model_kwargs={"attn_implementation": "eager"})


def tower_of(folder: Path, **changes: Any) -> EncoderSpec:
    spec = folder_spec(folder)
    return replace(spec, towers=(replace(spec.towers[0], **changes),))


def test_the_folder_says_what_it_is(tiny_qodo: Path) -> None:
    (tower,) = folder_spec(tiny_qodo).towers
    assert (tower.pooling, tower.causal, tower.max_tokens, tower.end_of_text) == ("last", True, 64, END)


def test_vectors_are_those_of_sentence_transformers(exported: Manifest, reference: Any) -> None:
    # the end of text is written out for it
    expected = reference.encode([text + END for text in TEXTS], normalize_embeddings=True)
    found = OnnxEncoder.load(exported.path, threads=1).embed(TEXTS, role="passage")
    np.testing.assert_allclose(found[:, :32], expected, atol=1e-5)
    assert not found[:, 32:].any()
    assert reference.tokenizer.padding_side == "left"


def test_ids_are_the_published_tokenizer_s_with_the_end_kept_at_the_limit(tiny_qodo: Path, reference: Any) -> None:
    (tower,) = folder_spec(tiny_qodo).towers
    tokenizer = tower_tokenizer(tower, tiny_qodo, max_tokens=8)
    end = reference.tokenizer.convert_tokens_to_ids(END)
    texts = [*TEXTS, "word " * 100]
    plain = reference.tokenizer(texts)["input_ids"]
    assert tokenizer.encode(texts) == [[*ids[:7], end] for ids in plain]


def test_a_vector_does_not_depend_on_its_neighbours(exported: Manifest) -> None:
    encoder = OnnxEncoder.load(exported.path, threads=1)
    together = encoder.embed(TEXTS, role="passage")
    alone = np.concatenate([encoder.embed([text], role="passage") for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_what_the_spec_says_in_torch_and_in_the_graph(
    tiny_qodo: Path, tmp_path: Path, causal: bool
) -> None:
    """The first token's state is pooled, so that only a token to its right can change the vector."""
    spec = tower_of(tiny_qodo, causal=causal, pooling="cls")
    model = load_model(spec)
    write_graph(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    ids, mask = pad([[7, 8, 9, 10, 11], [7, 8, 9, 10, 12], [7, 8]])
    with torch.inference_mode():
        in_torch = model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    (in_graph,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
    np.testing.assert_allclose(in_graph, in_torch, atol=1e-5)
    for vectors in (in_torch, in_graph):
        assert np.array_equal(vectors[0], vectors[1]) == causal


def test_both_ways_attention_is_that_of_transformers(tiny_qodo: Path) -> None:
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(tiny_qodo)
    config.is_causal = False
    expected_model = AutoModel.from_pretrained(tiny_qodo, config=config, attn_implementation="sdpa").eval()
    ids = torch.tensor([[7, 8, 9, 10, 11]])
    model = load_model(tower_of(tiny_qodo, causal=False))
    with torch.inference_mode():
        expected = expected_model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0, -1]
        found = model(ids, torch.ones_like(ids))[0, :32]
    torch.testing.assert_close(found, torch.nn.functional.normalize(expected, dim=0), atol=1e-5, rtol=0)


def test_a_bert_cannot_be_said_to_be_causal(tiny_model: Path) -> None:
    with pytest.raises(EncoderError, match="is said to attend causally"):
        load_model(tower_of(tiny_model, causal=True))


def test_a_configuration_that_its_own_code_contradicts_is_refused(tiny_qodo: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_qodo, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "is_causal": False}))
    with pytest.raises(EncoderError, match="is_causal=false") as caught:
        folder_spec(folder)
    assert '"preset": "qodo"' in str(caught.value)


def test_an_end_of_text_that_is_no_token_is_refused(tiny_qodo: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="has no token '<end>'"):
        export_encoder(tower_of(tiny_qodo, end_of_text="<end>"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_tower_is_not_cut_unless_it_was_trained_to_be(tiny_qodo: Path) -> None:
    with pytest.raises(EncoderError, match="32 dimensions, not 16"):
        load_model(tower_of(tiny_qodo, dimensions=16))
    cut = load_model(tower_of(tiny_qodo, dimensions=16, matryoshka_dimensions=(8, 16)))
    assert isinstance(cut.spec.towers[0], TowerSpec)
    whole = load_model(folder_spec(tiny_qodo))
    ids = torch.tensor([[7, 8, 9]])
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(whole(ids, torch.ones_like(ids))[:, :16], dim=1)
        found = cut(ids, torch.ones_like(ids))
    torch.testing.assert_close(found[:, :16], expected)
    assert not found[:, 16:].any()
