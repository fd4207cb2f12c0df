"""Towers in both layouts of jina-embeddings-v3, against computations that share no code with ours."""

import json
import math
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_towers import JINA_ALPHA, JINA_HEADS, JINA_LAYERS, JINA_PROMPTS, JINA_RANK, JINA_TASKS, JINA_WIDTH
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import embedding, gelu, layer_norm, linear, normalize

from pgembed.encoders.artefact import Manifest
from pgembed.encoders.batching import pad
from pgembed.encoders.folder import folder_spec
from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.encoders.spec import ROLES, EncoderSpec, Role
from pgembed.encoders.tokenizer import Tokenizer
from pgembed.errors import EncoderError
from pgembed.training.checkpoint import save_final
from pgembed.training.export import export_encoder
from pgembed.training.model import EncoderModel, load_model
from pgembed.training.recompute import recompute_layers

TEXTS = ["def add(a, b):\n    return a + b\n", "", "x", "open the file and read every line of it " * 5, "größer"]
TASK: dict[Role, str] = {"query": "retrieval.query", "passage": "retrieval.passage"}


def by_hand(folder: Path, ids: list[int], task: str) -> Tensor:
    """Return (H,): one text through the flash layout's weights, written from its description alone.

    Sturua et al. 2024 (arXiv:2409.10173) and modeling_lora.py of the flash implementation: every matrix is
    W + α/r · B·A of the task, an embedding's W + α/r · A·B; rotary positions in two halves of a head; norms behind.
    """
    tensors, task_id = load_file(folder / "model.safetensors"), JINA_TASKS.index(task)

    def matrix(name: str) -> Tensor:
        place = f"roberta.{name}.parametrizations.weight"
        a, b = (tensors[f"{place}.0.lora_{letter}"][task_id] for letter in "AB")
        change = a @ b if "embeddings" in name else b @ a
        return tensors[f"{place}.original"] + JINA_ALPHA / JINA_RANK * change

    def dense(name: str, x: Tensor) -> Tensor:
        return linear(x, matrix(name), tensors[f"roberta.{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return layer_norm(x, (JINA_WIDTH,), tensors[f"roberta.{name}.weight"], tensors[f"roberta.{name}.bias"], 1e-5)

    size = JINA_WIDTH // JINA_HEADS
    turns = torch.arange(len(ids))[:, None] * 20000.0 ** -(torch.arange(0, size, 2) / size)

    def turned(x: Tensor) -> Tensor:  # (T, heads, size)
        first, second = x.chunk(2, dim=-1)
        cos, sin = turns.cos()[:, None], turns.sin()[:, None]
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    x = embedding(torch.tensor(ids), matrix("embeddings.word_embeddings"))
    x = norm("emb_ln", x + matrix("embeddings.token_type_embeddings")[0])
    for n in range(JINA_LAYERS):
        block = f"encoder.layers.{n}"
        q, k, v = dense(f"{block}.mixer.Wqkv", x).view(len(ids), 3, JINA_HEADS, size).unbind(1)
        scores = torch.einsum("thd,shd->hts", turned(q), turned(k)) / math.sqrt(size)
        mixed = torch.einsum("hts,shd->thd", scores.softmax(-1), v).flatten(1)
        x = norm(f"{block}.norm1", x + dense(f"{block}.mixer.out_proj", mixed))
        x = norm(f"{block}.norm2", x + dense(f"{block}.mlp.fc2", gelu(dense(f"{block}.mlp.fc1", x))))
    return normalize(x.mean(0), dim=0)


@pytest.fixture(scope="module")
def exported(tiny_jina: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return export_encoder(tiny_jina, tmp_path_factory.mktemp("jina") / "artefact")


@pytest.fixture
def folder(tiny_jina: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_jina, tmp_path / "model")


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def prompted(role: Role) -> list[str]:
    return [JINA_PROMPTS[TASK[role]] + text for text in TEXTS]


def random_batch() -> tuple[Tensor, Tensor]:
    ids, mask = pad([[0, 9, 17, 30, 2], [0, 9, 2], [0, 44, 45, 46, 47, 48, 2]])
    return torch.from_numpy(ids), torch.from_numpy(mask)


def embed(model: EncoderModel, rows: list[int]) -> Tensor:
    ids, mask = random_batch()
    vectors: Tensor = model(ids, mask, torch.tensor(rows))
    return vectors


def test_the_published_folder_is_recognised(tiny_jina: Path) -> None:
    spec = folder_spec(tiny_jina)
    (tower,) = spec.towers
    assert [tower.adapter(role) for role in ROLES] == ["retrieval.query", "retrieval.passage"]
    assert [tower.prompt(role) for role in ROLES] == list(JINA_PROMPTS.values())
    assert (tower.pooling, tower.causal, tower.max_tokens, tower.dimensions) == ("mean", False, 130, JINA_WIDTH)
    assert tower.licence_note == "no commercial use"
    assert spec.takes_role


@pytest.mark.parametrize("role", ROLES)
def test_the_flash_layout_gives_the_vectors_that_it_means(exported: Manifest, tiny_jina: Path, role: Role) -> None:
    encoder = OnnxEncoder.load(exported.path, threads=1)
    ids = Tokenizer(tiny_jina / "tokenizer.json", max_tokens=130).encode(prompted(role))
    expected = torch.stack([by_hand(tiny_jina, row, TASK[role]) for row in ids])
    found = encoder.embed(TEXTS, role=role)
    np.testing.assert_allclose(found[:, :JINA_WIDTH], expected, atol=1e-5)
    assert not found[:, JINA_WIDTH:].any()


@pytest.mark.parametrize("role", ROLES)
def test_the_native_layout_gives_what_transformers_and_merged_weights_give(tiny_jina_native: Path, role: Role) -> None:
    """The adapter merged into the weights by hand, W + α/r · B·A, in transformers' own class."""
    from transformers import AutoModel

    reference = AutoModel.from_pretrained(tiny_jina_native, add_pooling_layer=False).eval()
    adapter = load_file(tiny_jina_native / TASK[role].replace(".", "_") / "adapter_model.safetensors")
    merged = 0
    for name, a in adapter.items():
        if ".lora_A" in name or "lora_embedding_A" in name:
            b = adapter[name.replace("_A", "_B")]
            layer = name.removeprefix("base_model.model.").partition(".lora_")[0]
            delta = JINA_ALPHA / JINA_RANK * (b @ a)
            weight = reference.get_parameter(f"{layer}.weight").data
            weight += delta.T if "embedding_A" in name else delta
            merged += 1
    assert merged == 2 + 6 * JINA_LAYERS
    ids, mask = random_batch()
    with torch.inference_mode():
        hidden = reference(input_ids=ids, attention_mask=mask).last_hidden_state
        found = embed(load_model(folder_spec(tiny_jina_native)), [ROLES.index(role)] * len(ids))
    expected = torch.stack([row[: int(length)].mean(0) for row, length in zip(hidden, mask.sum(1), strict=True)])
    torch.testing.assert_close(found[:, :JINA_WIDTH], normalize(expected, dim=1), atol=1e-5, rtol=0)


def test_the_native_layout_is_what_peft_makes_of_it(tiny_jina_native: Path) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModel

    plain = AutoModel.from_pretrained(tiny_jina_native, add_pooling_layer=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an older name
        reference = peft.PeftModel.from_pretrained(plain, str(tiny_jina_native / "retrieval_query")).eval()
    ids, mask = random_batch()
    transformer = load_model(folder_spec(tiny_jina_native)).towers[0].transformer
    with torch.inference_mode():
        expected = reference(input_ids=ids, attention_mask=mask).last_hidden_state
        found = transformer(input_ids=ids, attention_mask=mask, adapter_rows=torch.zeros(3, dtype=torch.long))
    real = mask.bool()
    torch.testing.assert_close(found.last_hidden_state[real], expected[real], atol=1e-5, rtol=1e-5)


def test_both_layouts_hold_the_same_model(tiny_jina: Path, tiny_jina_native: Path) -> None:
    with torch.inference_mode():
        flash, native = (embed(load_model(folder_spec(folder)), [0, 1, 0]) for folder in (tiny_jina, tiny_jina_native))
    torch.testing.assert_close(flash, native)


def test_the_role_chooses_the_weights_row_by_row(tiny_jina: Path) -> None:
    model = load_model(folder_spec(tiny_jina))
    with torch.inference_mode():
        queries, passages, mixed = embed(model, [0, 0, 0]), embed(model, [1, 1, 1]), embed(model, [0, 1, 0])
    torch.testing.assert_close(mixed, torch.stack([queries[0], passages[1], queries[2]]))
    assert float((queries * passages).sum(1).max()) < 0.999


def test_without_adapters_the_base_weights_run_alone(tiny_jina: Path, tiny_jina_native: Path) -> None:
    from transformers import AutoModel

    spec = folder_spec(tiny_jina)
    bare = replace(spec, towers=(replace(spec.towers[0], query_adapter="", passage_adapter=""),))
    assert not bare.takes_role
    ids, mask = random_batch()
    reference = AutoModel.from_pretrained(tiny_jina_native, add_pooling_layer=False).eval()
    with torch.inference_mode():
        found = load_model(bare).towers[0].transformer(input_ids=ids, attention_mask=mask).last_hidden_state
        expected = reference(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)


def test_a_role_without_an_adapter_adds_nothing(tiny_jina: Path) -> None:
    spec = folder_spec(tiny_jina)
    (tower,) = spec.towers
    half = replace(spec, towers=(replace(tower, passage_adapter=""),))
    none = replace(spec, towers=(replace(tower, query_adapter="", passage_adapter=""),))
    ids, mask = random_batch()
    with torch.inference_mode():
        torch.testing.assert_close(embed(load_model(half), [1, 1, 1]), load_model(none)(ids, mask))
        torch.testing.assert_close(embed(load_model(half), [0, 0, 0]), embed(load_model(spec), [0, 0, 0]))


def test_a_vector_does_not_depend_on_its_neighbours(exported: Manifest) -> None:
    encoder = OnnxEncoder.load(exported.path, threads=1)
    for role in ROLES:
        together = encoder.embed(TEXTS, role=role)
        alone = np.concatenate([encoder.embed([text], role=role) for text in TEXTS])
        np.testing.assert_allclose(together, alone, atol=1e-6)


def test_gradients_reach_the_base_and_the_adapters_of_the_roles_that_took_part(tiny_jina: Path) -> None:
    model = load_model(folder_spec(tiny_jina))
    embed(model, [1, 1, 1])[:, 0].sum().backward()
    grown = {name: parameter.grad for name, parameter in model.named_parameters() if "token_type" not in name}
    assert all(grad is not None and bool(grad.abs().sum() > 0) for grad in grown.values())
    for name, grad in grown.items():
        if ".adapter_" in name:
            assert grad is not None
            assert not grad[0].any()  # no query took part


def test_blocks_computed_again_take_the_rows_of_their_own_batch(tiny_jina: Path) -> None:
    """Gradient checkpointing: two batches forward, of different roles, before any goes backward."""

    def gradients(again: bool) -> Iterator[Tensor]:
        model = load_model(folder_spec(tiny_jina))
        if again:
            recompute_layers(model)
        weights = torch.linspace(-1, 1, 2560)
        first, second = (embed(model, rows) @ weights for rows in ([0, 1, 0], [1, 1, 0]))
        (first.sum() + second.sum()).backward()
        return (parameter.grad for parameter in model.parameters())

    for kept, again in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(kept, again)


@pytest.mark.parametrize("layout", ["flash", "native"])
def test_a_checkpoint_keeps_the_adapters_of_both_roles(
    tiny_jina: Path, tiny_jina_native: Path, tmp_path: Path, layout: str
) -> None:
    spec = folder_spec({"flash": tiny_jina, "native": tiny_jina_native}[layout])
    model = load_model(spec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
        expected = embed(model, [0, 1, 1])
    final = save_final(tmp_path, model, about={})
    tuned = folder_spec(final)
    assert tuned.takes_role
    with torch.inference_mode():
        torch.testing.assert_close(embed(load_model(tuned), [0, 1, 1]), expected)
    manifest = export_encoder(final, tmp_path / "artefact")
    assert manifest.parity["least_cosine"] > 0.99999


def test_a_width_is_cut_only_where_the_model_was_trained_for_it(tiny_jina: Path) -> None:
    spec = folder_spec(tiny_jina)

    def cut(width: int) -> EncoderSpec:
        return replace(spec, towers=(replace(spec.towers[0], dimensions=width),))

    with torch.inference_mode():
        whole = embed(load_model(spec), [0, 1, 0])
        found = embed(load_model(cut(8)), [0, 1, 0])
    torch.testing.assert_close(found[:, :8], normalize(whole[:, :8], dim=1))
    assert not found[:, 8:].any()
    with pytest.raises(EncoderError, match="not 9 as said") as caught:
        load_model(cut(9))
    assert "8, 16, 32" in str(caught.value)


def test_a_pair_s_cosine_is_the_weighted_mean_of_its_towers(tiny_qodo: Path, tiny_jina: Path, tmp_path: Path) -> None:
    """With a cut tower, zeros behind both in their slots, and a role: cosine = Σ weight² · cosine / Σ weight²."""
    qodo, jina = folder_spec(tiny_qodo).towers[0], replace(folder_spec(tiny_jina).towers[0], dimensions=16)
    pair = EncoderSpec("pair", (replace(qodo, slot=1536), replace(jina, slot=1024, weight=0.5)))
    together = OnnxEncoder.load(export_encoder(pair, tmp_path / "pair").path, threads=1)
    alone = [
        OnnxEncoder.load(export_encoder(EncoderSpec(t.name, (t,)), tmp_path / t.name).path, threads=1)
        for t in (qodo, jina)
    ]

    def cosines(encoder: OnnxEncoder) -> Any:
        return encoder.embed(TEXTS, role="query") @ encoder.embed(TEXTS, role="passage").T

    expected = (cosines(alone[0]) + 0.25 * cosines(alone[1])) / 1.25
    np.testing.assert_allclose(cosines(together), expected, atol=1e-5)
    vectors = together.embed(TEXTS, role="query")
    filled = np.flatnonzero(vectors.any(axis=0))
    assert filled.max() < 1536 + 16
    assert not [n for n in filled if 32 <= n < 1536]


def test_what_the_weights_lack_or_have_too_much_of_is_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    gone = "roberta.encoder.layers.1.mlp.fc2.bias"
    save_file({name: value for name, value in weights.items() if name != gone}, folder / "model.safetensors")
    with pytest.raises(EncoderError, match=r"lack layers\.1\.mlp\.fc2\.bias"):
        load_model(folder_spec(folder))
    save_file({**weights, "roberta.encoder.layers.2.norm1.bias": torch.zeros(32)}, folder / "model.safetensors")
    with pytest.raises(EncoderError, match=r"layers\.2\.post_attention_layernorm\.bias"):
        load_model(folder_spec(folder))
    save_file({**weights, gone: torch.zeros(31)}, folder / "model.safetensors")
    with pytest.raises(EncoderError, match="misfit"):
        load_model(folder_spec(folder))
    (folder / "model.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(EncoderError, match="is not a file of safetensors"):
        load_model(folder_spec(folder))


def test_a_configuration_of_another_kind_is_refused(folder: Path) -> None:
    change(folder / "config.json", position_embedding_type="absolute")
    with pytest.raises(EncoderError, match="'absolute' positions"):
        load_model(folder_spec(folder))
    change(folder / "config.json", lora_adaptations=["separation"])
    with pytest.raises(EncoderError, match=r"separation, not retrieval\.query"):
        folder_spec(folder)


def test_code_of_a_repository_is_refused_where_it_is_not_known(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "other_code.Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(EncoderError, match=r"other_code\.Transformer, which is never run"):
        folder_spec(folder)


def test_adapters_that_are_missing_or_no_plain_lora_are_refused(tiny_jina_native: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_jina_native, tmp_path / "native")
    change(folder / "retrieval_query" / "adapter_config.json", use_dora=True)
    with pytest.raises(EncoderError, match="use_dora"):
        load_model(folder_spec(folder))
    shutil.rmtree(folder / "retrieval_query")
    with pytest.raises(EncoderError, match=r"no task adapter 'retrieval\.query'"):
        load_model(folder_spec(folder))


def test_adapters_are_refused_where_they_are_not_implemented(tiny_model: Path) -> None:
    spec = folder_spec(tiny_model)
    with pytest.raises(EncoderError, match="jina-embeddings-v3 alone"):
        load_model(replace(spec, towers=(replace(spec.towers[0], query_adapter="retrieval.query"),)))
