import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import psycopg
import pytest
from fixtures_code import CODE, HOSTILE
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pgembed.encoders.artefact import load_manifest
from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.encoders.registry import register_encoder
from pgembed.encoders.spec import EncoderSpec, TowerSpec
from pgembed.encoders.windows import LONG, Long
from pgembed.errors import EncoderError, MissingExtra
from pgembed_code.installation import install_line

TEXTS = [
    "def add(a, b):\n    return a + b",
    "",
    "class Node:\n    pass",
    "for i in range(10): print(i)\n" * 30,
    "SELECT 1",
    "größe = 3  # 日本",
]


@pytest.fixture(scope="module")
def encoder(tiny_encoder: Path) -> OnnxEncoder:
    return OnnxEncoder.load(tiny_encoder, threads=1)


def test_vectors_are_unit_and_fill_the_front(encoder: OnnxEncoder) -> None:
    vectors = encoder.embed(TEXTS, role="passage")
    assert vectors.shape == (len(TEXTS), 2560)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert not vectors[:, 32:].any()
    # not one vector for everything
    assert (vectors @ vectors.T - np.eye(len(TEXTS))).max() < 0.99


def test_no_texts_give_no_vectors(encoder: OnnxEncoder) -> None:
    assert encoder.embed([], role="query").shape == (0, 2560)


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from([*TEXTS, *CODE.values(), *HOSTILE]), min_size=1, max_size=40),
    st.sampled_from([1, 16, 64, 2048]),
    st.sampled_from(LONG),
)
def test_a_vector_does_not_depend_on_its_neighbours_their_order_or_the_padding(
    encoder: OnnxEncoder, texts: list[str], budget: int, long: Long
) -> None:
    """The tolerance that `embed` states: 2e-6 in each dimension, and so a cosine above 0.999999."""
    alone = {text: encoder.embed_each([text], role="passage", long=long).vectors[0] for text in set(texts)}
    before, encoder._budget = encoder._budget, budget
    try:
        together = encoder.embed_each(texts, role="passage", long=long).vectors
    finally:
        encoder._budget = before
    expected = np.array([alone[text] for text in texts])
    np.testing.assert_allclose(together, expected, atol=2e-6)
    assert (together * expected).sum(axis=1).min() > 0.999999


@pytest.mark.parametrize("long", LONG)
def test_batches_side_by_side_give_what_one_at_a_time_gives(
    tiny_encoder: Path, encoder: OnnxEncoder, long: Long
) -> None:
    """More batches than may be in flight, the last of them shorter than the first, and progress to the last text."""

    class Count:
        done = 0

        def advance(self, amount: int = 1) -> None:
            self.done += amount

        def note(self, text: str) -> None:
            raise AssertionError(text)

    bulk = OnnxEncoder.load(tiny_encoder, threads=3, bulk=True)
    bulk._budget = 128
    texts = [f"{text} {n}" for n in range(12) for text in (*TEXTS, *CODE.values())]
    seen = Count()
    found = bulk.embed_each(texts, role="passage", long=long, task=seen)
    assert seen.done == len(texts)
    np.testing.assert_allclose(found.vectors, encoder.embed_each(texts, role="passage", long=long).vectors, atol=2e-6)


def test_tokens_in_flight_are_bounded(tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from pgembed.encoders import onnx_encoder

    monkeypatch.setattr(onnx_encoder, "_LANE_TOKENS", 40)
    bulk = OnnxEncoder.load(tiny_encoder, threads=4, bulk=True)
    bulk._budget = 30
    session, lock = bulk._session, threading.Lock()

    class Watched:
        now = most = most_runs = runs = 0

        def run(self, names: list[str], feed: dict[str, np.ndarray], options: object) -> object:  # type: ignore[type-arg]
            size = feed["input_ids"].size
            with lock:
                self.now, self.runs = self.now + size, self.runs + 1
                self.most, self.most_runs = max(self.most, self.now), max(self.most_runs, self.runs)
            try:
                return session.run(names, feed, options)
            finally:
                with lock:
                    self.now, self.runs = self.now - size, self.runs - 1

    bulk._session = watched = Watched()
    vectors = bulk.embed([*TEXTS, *CODE.values()] * 6, role="passage")
    assert np.isfinite(vectors).all()
    assert 1 < watched.most_runs <= 4
    assert watched.most <= 4 * 40 * 1.2  # counted without padding, of which a batch has a tenth at most


def test_a_failure_beside_others_ends_all(tiny_encoder: Path) -> None:
    bulk = OnnxEncoder.load(tiny_encoder, threads=3, bulk=True)

    class Dead:
        asked = 0

        def run(self, *_: object) -> None:
            self.asked += 1
            raise RuntimeError("out of memory")

    bulk._session = dead = Dead()
    bulk._budget = 16
    with pytest.raises(EncoderError, match="fails on every text: out of memory"):
        bulk.embed_each([f"text {n}" for n in range(500)], role="passage")
    assert dead.asked < 60


def test_an_output_that_is_bound_is_the_output(tiny_encoder: Path, encoder: OnnxEncoder) -> None:
    """The way that CUDA's results take, on the CPU's device, which the engine binds alike."""
    bound = OnnxEncoder.load(tiny_encoder, threads=1)
    bound._binds = True
    for texts in (TEXTS, TEXTS[:1], [*TEXTS, *CODE.values()]):
        np.testing.assert_array_equal(bound.embed(texts, role="query"), encoder.embed(texts, role="query"))


def test_long_texts_in_windows_are_the_mean_of_their_windows(encoder: OnnxEncoder, tiny_model: Path) -> None:
    """Against transformers alone: its tokenizer's overflowing windows, its model, and NumPy."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model, local_files_only=True)
    model = AutoModel.from_pretrained(tiny_model, local_files_only=True).eval()
    texts = [TEXTS[3], TEXTS[0], CODE["go"], "word " * 500]
    found = encoder.embed_each(texts, role="passage", long="windows")
    assert found.long == [0, 2, 3]
    assert found.errors == {}
    for n, text in enumerate(texts):
        windows = tokenizer(
            text, truncation=True, max_length=64, stride=62 // 8, return_overflowing_tokens=True
        )["input_ids"]  # fmt: skip
        assert (len(windows) > 1) == (n in found.long)
        total = np.zeros(32)
        for ids in windows:
            with torch.inference_mode():
                mean = model(torch.tensor([ids])).last_hidden_state[0].mean(dim=0).double().numpy()
            total += (len(ids) - 2) * mean / np.linalg.norm(mean)
        np.testing.assert_allclose(found.vectors[n, :32], total / np.linalg.norm(total), atol=1e-5)
    cut = encoder.embed_each(texts, role="passage")
    assert cut.long == found.long
    same = (cut.vectors * found.vectors).sum(axis=1)
    assert same[1] == pytest.approx(1, abs=1e-6)
    assert max(same[0], same[2]) < 0.999


def test_two_towers_cut_their_windows_each_for_itself(tiny_model: Path, tmp_path: Path) -> None:
    """Against each tower exported alone: a pair's vector is the two of them, weighted and joined."""
    from pgembed.training.export import export_encoder

    first = TowerSpec("first", f"folder:{tiny_model}", 32, 1536, "mean", causal=False, max_tokens=64, weight=1.0)
    second = dataclasses.replace(
        first, name="second", slot=1024, pooling="cls", max_tokens=24, weight=0.5, passage_prompt="A document of code: "
    )
    pair = OnnxEncoder.load(export_encoder(EncoderSpec("pair", (first, second)), tmp_path / "pair").path, threads=1)
    alone = [
        OnnxEncoder.load(
            export_encoder(EncoderSpec("one", (dataclasses.replace(tower, slot=2560),)), tmp_path / tower.name).path,
            threads=1,
        )
        for tower in (first, second)
    ]
    # long for both, for the second alone (with its prompt), and for neither
    texts = ["word " * 300, "return the sum of two numbers and of all others " * 2, "x"]
    found = pair.embed_each(texts, role="passage", long="windows")
    assert found.long == [0, 1]
    parts = [encoder.embed_each(texts, role="passage", long="windows").vectors[:, :32] for encoder in alone]
    norm = np.hypot(1.0, 0.5)
    np.testing.assert_allclose(found.vectors[:, :32], parts[0] / norm, atol=2e-6)
    np.testing.assert_allclose(found.vectors[:, 1536 : 1536 + 32], 0.5 * parts[1] / norm, atol=2e-6)
    cut = pair.embed_each(texts, role="passage").vectors
    assert (cut[:2] * found.vectors[:2]).sum(axis=1).max() < 0.9999


@pytest.fixture
def overreaching(tiny_encoder: Path, tmp_path: Path) -> Path:
    """The tiny model, said to read more tokens than it has positions for: its graph fails on texts beyond 128."""
    copy = shutil.copytree(tiny_encoder, tmp_path / "overreaching")
    manifest = json.loads((copy / "encoder.json").read_text())
    manifest["spec"]["towers"][0]["max_tokens"] = 500
    (copy / "encoder.json").write_text(json.dumps(manifest))
    return Path(copy)


@pytest.mark.parametrize("long", LONG)
def test_a_text_that_the_engine_or_the_tokenizer_fails_on_costs_no_other_its_vector(
    overreaching: Path, encoder: OnnxEncoder, long: Long, capfd: pytest.CaptureFixture[str]
) -> None:
    failing = OnnxEncoder.load(overreaching, threads=1)
    good = [f"def f{n}():\n    return {n}" for n in range(20)]
    texts = [*good[:7], "word " * 300, *good[7:11], "half \ud800 a pair", *good[11:], "other " * 400, "tail " * 2000]
    bad = [7, 12, 22, 23]
    capfd.readouterr()
    found = failing.embed_each(texts, role="passage", long=long)
    assert sorted(found.errors) == bad
    assert "ONNXRuntimeError" in found.errors[7]
    assert found.errors[12].startswith(("UnicodeEncodeError", "TypeError"))
    assert capfd.readouterr() == ("", "")  # what the engine says is kept, and not printed for every half of a batch
    assert np.isnan(found.vectors[bad]).all()
    kept = np.delete(found.vectors, bad, axis=0)
    np.testing.assert_allclose(kept, encoder.embed(good, role="passage"), atol=2e-6)
    with pytest.raises(EncoderError, match=r"ONNXRuntimeError.*text at 7"):
        failing.embed(texts, role="passage")


def test_an_engine_that_fails_on_everything_is_an_error_and_no_texts_fault(encoder: OnnxEncoder) -> None:
    class Dead:
        asked = 0

        def run(self, *_: object) -> None:
            self.asked += 1
            raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")

    session, dead = encoder._session, Dead()
    encoder._session = dead
    try:
        with pytest.raises(EncoderError, match="fails on every text: CUDA failure 700"):
            encoder.embed_each([f"text {n}" for n in range(500)], role="passage")
    finally:
        encoder._session = session
    assert dead.asked < 20  # it is found out on the way down to one text, not text by text


def test_equals_sentence_transformers(encoder: OnnxEncoder, tiny_model: Path) -> None:
    from sentence_transformers import SentenceTransformer

    expected = SentenceTransformer(str(tiny_model), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(encoder.embed(TEXTS, role="passage")[:, :32], expected, atol=1e-5)
    assert encoder.truncated > 0


@pytest.mark.real_weights
def test_minilm_equals_sentence_transformers_on_real_functions(minilm_artefact: Path) -> None:
    import ast
    import inspect

    from sentence_transformers import SentenceTransformer

    from pgembed.encoders.presets import preset
    from pgembed.encoders.weights import locate

    source = inspect.getsource(inspect)
    functions = [
        ast.get_source_segment(source, node) or ""
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
    ]
    texts = sorted(functions, key=len)[::4] + sorted(functions, key=len)[-2:]
    encoder = OnnxEncoder.load(minilm_artefact)
    found = encoder.embed(texts, role="passage")
    assert encoder.truncated >= 2  # texts beyond 256 tokens are among them
    expected = SentenceTransformer(str(locate(preset("minilm").towers[0])), device="cpu").encode(texts)
    assert (found[:, :384] * expected).sum(axis=1).min() >= 0.99999
    assert not found[:, 384:].any()


def test_a_text_without_a_usable_vector_is_named(tiny_model: Path, tmp_path: Path) -> None:
    """One row of the vocabulary is broken: only the text that has that token may fail, and by its position."""
    from safetensors.numpy import load_file, save_file

    from pgembed.encoders.tokenizer import Tokenizer
    from pgembed.training.export import export_encoder

    model = shutil.copytree(tiny_model, tmp_path / "broken")
    (token,) = Tokenizer(model / "tokenizer.json", max_tokens=16).encode(["zebra"])[0][1:-1]
    weights = load_file(model / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][token] = np.nan
    save_file(weights, model / "model.safetensors")
    encoder = OnnxEncoder.load(export_encoder(model, tmp_path / "out").path, threads=1)
    assert np.isfinite(encoder.embed(["horse", "cow"], role="passage")).all()
    with pytest.raises(EncoderError, match="text at 1"):
        encoder.embed(["horse", "zebra", "cow"], role="passage")


def test_embedding_needs_neither_torch_nor_transformers(tiny_encoder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from pgembed.encoders.onnx_encoder import OnnxEncoder\n"
        f"OnnxEncoder.load(Path({str(tiny_encoder)!r})).embed(['x'], role='query')\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_cuda_is_never_replaced_by_the_cpu(tiny_encoder: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this build has CUDA")
    with pytest.raises(EncoderError, match="CUDAExecutionProvider"):
        OnnxEncoder.load(tiny_encoder, provider="cuda")


def test_an_unknown_provider_is_refused(tiny_encoder: Path) -> None:
    with pytest.raises(EncoderError, match="tpu"):
        OnnxEncoder.load(tiny_encoder, provider="tpu")


def test_both_builds_of_onnxruntime_at_once_are_an_error(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnxruntime", "onnxruntime_gpu"):
        info = tmp_path / f"{name}-1.30.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.30.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EncoderError, match="both installed"):
        OnnxEncoder.load(tiny_encoder)


def test_a_missing_onnxruntime_names_the_line_that_installs_it(
    tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=re.escape(install_line("onnx"))):
        OnnxEncoder.load(tiny_encoder)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer-tiny.json"])
def test_a_file_that_changed_or_went_is_noticed(tiny_encoder: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(tiny_encoder, tmp_path / "copy")
    with (copy / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(EncoderError, match="sha256"):
        load_manifest(copy)
    (copy / name).unlink()
    with pytest.raises(EncoderError, match="missing"):
        load_manifest(copy)


def test_what_is_no_artefact_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="not an exported encoder"):
        load_manifest(tmp_path)
    (tmp_path / "encoder.json").write_text('{"format": 99}')
    with pytest.raises(EncoderError, match="format 99"):
        load_manifest(tmp_path)


def test_an_encoder_is_one_row_however_often_it_is_registered(conn: psycopg.Connection, tiny_encoder: Path) -> None:
    manifest = load_manifest(tiny_encoder)
    first = register_encoder(conn, manifest.spec, manifest.fingerprint)
    assert register_encoder(conn, manifest.spec, manifest.fingerprint) == first
    assert register_encoder(conn, manifest.spec, "0" * 64) != first
    row = conn.execute("SELECT name, spec FROM pgembed.encoders WHERE id = %s", (first,)).fetchone()
    assert row == ("tiny", manifest.spec.to_json())
