"""Graphs of lower precision: what they compute, what they are written as, and what keeps them from being written."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import psycopg
import pytest
from fixtures_cli import pgembed
from fixtures_code import CODE
from fixtures_vectors import add_code

from pgembed.encoders.artefact import Manifest, load_manifest
from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.encoders.spec import EncoderSpec
from pgembed.errors import EvaluationError, ExportError
from pgembed.evaluation.dataset import Dataset
from pgembed.training import quantise, variant, variant_gate
from pgembed.training.export import PARITY_TEXTS, export_encoder
from pgembed.training.variant import GateError, export_variant
from pgembed.vectors.reindex import reindex

TEXTS = [*PARITY_TEXTS[1:], *CODE.values()]
# Least cosine of each text of a tiny random model, whose weights are wilder than a trained one's.
FLOOR = {"float16": 0.9999, "int8": 0.98}


@pytest.fixture(scope="module")
def models(tiny_model: Path, tiny_qodo: Path, tiny_jina: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny models' float32 artefacts: bert (mean), qodo (causal, last token), jina (task adapters)."""
    folder = tmp_path_factory.mktemp("float32")
    for name, model in (("bert", tiny_model), ("qodo", tiny_qodo), ("jina", tiny_jina)):
        export_encoder(model, folder / name)
    return folder


def find_by(documents: int = 30) -> Dataset:
    """Return a data set in which each query is the document that it looks for: any honest encoder is perfect."""
    texts = {f"d{n}": f"def f{n}(x):\n    return {'x + ' * (n % 7)}{n}" for n in range(documents)}
    return Dataset("same text", {f"q{n}": text for n, text in enumerate(texts.values())}, texts, {
        f"q{n}": {f"d{n}": 1} for n in range(documents)
    })  # fmt: skip


def weights_bytes(manifest: Manifest) -> int:
    """Return what the weights take; in a model as tiny as these the nodes take as much."""
    return sum(onnx.numpy_helper.to_array(one).nbytes for one in onnx.load(manifest.model_path).graph.initializer)


@pytest.mark.parametrize("precision", FLOOR)
@pytest.mark.parametrize("name", ["bert", "qodo", "jina"])
def test_a_variant_gives_nearly_the_same_vectors(models: Path, tmp_path: Path, name: str, precision: str) -> None:
    reference = load_manifest(models / name)
    manifest = export_variant(reference, precision, tmp_path / "out")
    assert load_manifest(tmp_path / "out") == manifest
    assert (manifest.precision, manifest.variant_of) == (precision, reference.onnx_sha256)
    assert manifest.fingerprint == reference.fingerprint
    assert manifest.onnx_sha256 != reference.onnx_sha256
    assert weights_bytes(manifest) < 0.6 * weights_bytes(reference)
    before, after = (OnnxEncoder.load(one.path, threads=1) for one in (reference, manifest))
    apart = []
    for role in ("query", "passage"):
        a, b = before.embed(TEXTS, role=role), after.embed(TEXTS, role=role)
        assert b.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(b, axis=1), 1, atol=1e-6)
        assert FLOOR[precision] < (a * b).sum(axis=1).min() < 1 - 1e-8  # near, and not the same graph again
        apart.append((a, b))
    (a_query, b_query), (a_passage, b_passage) = apart
    if name == "jina":  # the role still chooses the adapter
        np.testing.assert_allclose((b_query * b_passage).sum(axis=1), (a_query * a_passage).sum(axis=1), atol=0.02)
        assert (b_query * b_passage).sum(axis=1).max() < 0.99


@pytest.mark.parametrize("precision", FLOOR)
def test_a_causal_tower_stays_causal(models: Path, tmp_path: Path, precision: str) -> None:
    """A token behind the last real one, masked or not, must change nothing; one before it must."""
    manifest = export_variant(load_manifest(models / "qodo"), precision, tmp_path / "out")
    session = OnnxEncoder.load(manifest.path, threads=1)._session

    def vector(ids: list[int], mask: list[int]) -> npt.NDArray[np.float32]:
        feed = {"input_ids": np.array([ids]), "attention_mask": np.array([mask])}
        return np.asarray(session.run(None, feed)[0][0])

    plain = vector([40, 50, 60], [1, 1, 1])
    # int8 scales activations by all that is in the batch, so a neighbour moves them by a rounding
    near = 1e-6 if precision == "float16" else 0.02
    assert 1 - plain @ vector([40, 50, 60, 70, 80], [1, 1, 1, 0, 0]) < near
    assert 1 - plain @ vector([41, 50, 60], [1, 1, 1]) > 2 * near


def test_what_is_written_in_which_type(models: Path, tmp_path: Path) -> None:
    half = export_variant(load_manifest(models / "bert"), "float16", tmp_path / "half")
    types = Counter(weight.data_type for weight in onnx.load(half.model_path).graph.initializer)
    assert set(types) <= {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}
    whole = export_variant(load_manifest(models / "bert"), "int8", tmp_path / "whole")
    graph = onnx.load(whole.model_path).graph
    assert whole.producer["quantised"] == ["MatMul", "Gemm", "Gather"]
    scales = [w for w in graph.initializer if "MatMul" in w.name and w.name.endswith("_scale")]
    assert len(scales) == 2 * 6  # six matrices a layer
    assert {tuple(scale.dims) for scale in scales} == {(32,), (64,)}  # one for each output channel
    assert not [w for w in graph.initializer if w.data_type == onnx.TensorProto.FLOAT and len(w.dims) == 2]


def test_half_precision_does_not_overflow_in_pooling(models: Path, tmp_path: Path, tiny_model: Path) -> None:
    """The sum over tokens that the mean is made from exceeds 65,504, which float16 cannot hold."""
    import shutil

    from safetensors.numpy import load_file, save_file

    model = shutil.copytree(tiny_model, tmp_path / "wide")
    weights = load_file(model / "model.safetensors")
    last = "encoder.layer.1.output.LayerNorm.weight"
    weights[last] = weights[last] * 5000
    save_file(weights, model / "model.safetensors")
    reference = export_encoder(model, tmp_path / "float32")
    manifest = export_variant(reference, "float16", tmp_path / "out")
    a, b = (OnnxEncoder.load(one.path, threads=1).embed(TEXTS, role="passage") for one in (reference, manifest))
    assert (a * b).sum(axis=1).min() > 0.9999
    loud = np.abs(weights[last]).sum() * 60 / 32
    assert loud > 65504


def test_two_towers_of_two_kinds(tiny_qodo: Path, tiny_jina: Path, tmp_path: Path) -> None:
    from pgembed.encoders.folder import folder_spec

    first, second = folder_spec(tiny_qodo).towers[0], folder_spec(tiny_jina).towers[0]
    pair = EncoderSpec("pair", (replace(first, name="a", slot=1536), replace(second, name="b", slot=1024)))
    reference = export_encoder(pair, tmp_path / "float32")
    for precision, floor in FLOOR.items():
        manifest = export_variant(reference, precision, tmp_path / precision)
        a, b = (OnnxEncoder.load(one.path, threads=1).embed(TEXTS, role="query") for one in (reference, manifest))
        assert (a * b).sum(axis=1).min() > floor


@pytest.mark.parametrize("precision", FLOOR)
def test_weights_beyond_the_limit_of_a_graph_lie_beside_it(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """As of a model beyond 2 GB: the float32 graph has its weights outside, and the variant writes its own so."""
    import shutil

    from pgembed.encoders.weights import file_sha256
    from pgembed.training.export import gather_weights
    from pgembed.training.export import write_manifest as write

    folder = shutil.copytree(models / "qodo", tmp_path / "large")
    graph = onnx.load(folder / "model.onnx")
    onnx.save_model(graph, folder / "model.onnx", save_as_external_data=True, location="w", size_threshold=0)
    gather_weights(folder / "model.onnx")
    (folder / "w").unlink()
    known = load_manifest(models / "qodo")
    names = ("model.onnx", "model.onnx.data", "tokenizer-qodo.json")
    files = {path.name: file_sha256(path) for path in folder.iterdir() if path.name != "encoder.json"}
    assert set(files) == set(names)
    reference = replace(known, path=folder, files=files)
    write(reference, folder)
    plain = export_variant(known, precision, tmp_path / "plain")
    monkeypatch.setattr(quantise, "LARGEST_GRAPH_BYTES", 1000)
    large = export_variant(load_manifest(folder), precision, tmp_path / "out")
    a, b = (OnnxEncoder.load(one.path, threads=1).embed(TEXTS, role="passage") for one in (plain, large))
    np.testing.assert_allclose(a, b, atol=1e-6)
    if precision == "int8":
        assert set(large.files) == set(names)
        assert (large.path / "model.onnx.data").stat().st_size > 10 * 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large", "out", "plain"]


def test_a_variant_that_searches_as_well_passes_and_is_kept(
    conn: psycopg.Connection, models: Path, tmp_path: Path
) -> None:
    reference = load_manifest(models / "bert")
    manifest = export_variant(reference, "int8", tmp_path / "out", conn=conn, dataset=find_by())
    assert manifest.gate is not None
    assert manifest.gate["passed"]
    assert manifest.gate["metrics"]["ndcg@10"] == [1.0, 1.0]
    assert not manifest.is_unjudged
    # a row for each graph, told apart by its hash
    hashes = conn.execute("SELECT settings->>'onnx_sha256' FROM pgembed.evaluations").fetchall()
    assert {row[0] for row in hashes} == {reference.onnx_sha256, manifest.onnx_sha256}
    written = manifest.model_path.stat().st_mtime_ns
    assert export_variant(reference, "int8", tmp_path / "out", conn=conn, dataset=find_by()) == manifest
    assert manifest.model_path.stat().st_mtime_ns == written
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_unmeasured_variant_is_measured_once_there_is_data(
    conn: psycopg.Connection, models: Path, tmp_path: Path
) -> None:
    reference = load_manifest(models / "bert")
    assert export_variant(reference, "float16", tmp_path / "out").is_unjudged
    judged = export_variant(reference, "float16", tmp_path / "out", conn=conn, dataset=find_by())
    assert not judged.is_unjudged
    assert load_manifest(tmp_path / "out") == judged


@pytest.fixture
def ruined(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Make the int8 graph one of other weights, as a quantisation that went wrong would; returns what was tried."""
    tried: list[tuple[str, ...]] = []

    def write(source: Path, graph: Path, operators: tuple[str, ...]) -> None:
        tried.append(operators)
        model = onnx.load(source)
        noise = np.random.default_rng(0)
        for weight in model.graph.initializer:
            values = onnx.numpy_helper.to_array(weight)
            if values.dtype == np.float32 and values.ndim == 2:
                shuffled = noise.permuted(values, axis=0)
                weight.CopyFrom(onnx.numpy_helper.from_array(shuffled, weight.name))
        onnx.save(model, graph)

    monkeypatch.setattr(variant, "write_int8", write)
    return tried


def test_a_variant_that_searches_worse_is_not_written(
    conn: psycopg.Connection, models: Path, tmp_path: Path, ruined: list[tuple[str, ...]]
) -> None:
    with pytest.raises(GateError, match=r"did not pass.*points of nDCG@10") as failure:
        export_variant(load_manifest(models / "bert"), "int8", tmp_path / "out", conn=conn, dataset=find_by())
    assert len(ruined) == 2  # with the embedding tables and without
    verdict = failure.value.verdict
    assert not verdict.close
    assert [row[-1] for row in verdict.table() if row[-1]] == ["missed", "met"]  # a text still finds itself
    assert list(tmp_path.iterdir()) == []


def test_the_gate_is_half_a_point_or_a_point_of_ndcg() -> None:
    near = variant_gate.Cosines(100, 0.999, 0.9995, {"0.01": 0.9992})

    def passed(precision: str, before: float, after: float) -> bool:
        limits = variant_gate.LIMITS[precision]
        return variant_gate.Verdict(precision, limits, near, metrics={"ndcg@10": [before, after]}).passed

    assert passed("int8", 0.85, 0.84)
    assert not passed("int8", 0.85, 0.8399)
    assert passed("float16", 0.85, 0.845)
    assert not passed("float16", 0.85, 0.8449)
    assert passed("float16", 0.85, 0.9)
    far = replace(near, quantiles={"0.01": 0.9})
    assert not variant_gate.Verdict("int8", variant_gate.LIMITS["int8"], far, metrics={"ndcg@10": [0.5, 0.5]}).passed
    assert not variant_gate.Verdict("int8", variant_gate.LIMITS["int8"], near).passed  # nothing to judge by


def test_too_few_queries_judge_nothing(conn: psycopg.Connection, models: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="19 queries; 20 are needed"):
        export_variant(load_manifest(models / "bert"), "int8", tmp_path / "out", conn=conn, dataset=find_by(19))


def test_a_variant_is_made_from_float32_and_never_in_its_place(models: Path, tmp_path: Path) -> None:
    half = export_variant(load_manifest(models / "bert"), "float16", tmp_path / "half")
    with pytest.raises(ExportError, match="is float16"):
        export_variant(half, "int8", tmp_path / "out")
    with pytest.raises(ExportError, match="holds the float32 graph"):
        export_variant(load_manifest(models / "bert"), "int8", models / "bert")
    load_manifest(models / "bert")


def test_a_variant_fills_a_generation_of_its_own_and_says_when_nobody_measured_it(
    conn: psycopg.Connection, database_url: str, models: Path, tmp_path: Path
) -> None:
    add_code(conn, [f"def f{n}(): return {n}" for n in range(8)])
    manifest = export_variant(load_manifest(models / "bert"), "int8", tmp_path / "bert-int8")
    first = reindex(database_url, models / "bert")
    second = pgembed("reindex", "--artefact", str(manifest.path), "--dsn", database_url, "--json")
    assert second.code == 0, second.stderr
    assert json.loads(second.stdout)["generation_id"] != first.generation_id
    assert "int8" in second.stderr
    assert "without the gate" in second.stderr


def beir(folder: Path, dataset: Dataset) -> Path:
    """Write a data set in BEIR's layout."""
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", dataset.documents), ("queries", dataset.queries)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    rows = [f"{query}\t{document}\t1" for query, judged in dataset.judgements.items() for document in judged]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(rows))
    return folder


def test_the_command_refuses_without_data_and_takes_a_data_set_or_a_word(
    database_url: str, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mine"
    command = (
        "export",
        "--checkpoint",
        str(tiny_model),
        "--precision",
        "int8",
        "--out",
        str(out),
        "--dsn",
        database_url,
    )
    refused = pgembed(*command)
    assert refused.code == 1
    assert "nothing to judge" in refused.stderr
    assert "--without-gate" in refused.stderr
    assert not out.exists()
    unmeasured = pgembed(*command, "--without-gate")
    assert unmeasured.code == 0, unmeasured.stderr
    assert "Not measured on any data" in unmeasured.stdout
    assert load_manifest(out).is_unjudged
    judged = pgembed(*command, "--dataset", str(beir(tmp_path / "data", find_by())))
    assert judged.code == 0, judged.stderr
    assert "data: 30 queries, 30 documents. Passed." in judged.stdout
    gate = load_manifest(out).gate
    assert gate is not None
    assert gate["dataset"] == "data"


def test_the_command_shows_the_table_of_a_variant_that_fails(
    database_url: str, tiny_model: Path, tmp_path: Path, ruined: list[tuple[str, ...]]
) -> None:
    data = beir(tmp_path / "data", find_by())
    out = tmp_path / "out"
    command = ("export", "--checkpoint", str(tiny_model), "--precision", "int8", "--dataset", str(data))
    failed = pgembed(*command, "--out", str(out), "--dsn", database_url)
    assert failed.code == 1
    assert "missed" in failed.stdout
    assert "Failed." in failed.stdout
    assert not out.exists()


@pytest.mark.parametrize(
    "options", [("--precision", "fp8"), ("--dataset", "."), ("--precision", "int8", "--dataset", ".", "--without-gate")]
)
def test_options_that_do_not_go_together(options: tuple[str, ...]) -> None:
    assert pgembed("export", "--encoder", "minilm", *options).code == 2


def test_the_encoders_own_name_means_float32(models: Path, tmp_path: Path, conn: psycopg.Connection) -> None:
    from pgembed.vectors.artefacts import choose_artefact

    reference: Manifest = export_encoder(load_manifest(models / "bert").spec, tmp_path / "first", name="ours")
    variant_of_it = export_variant(reference, "float16", tmp_path / "second")
    assert choose_artefact(conn, tmp_path, "ours") == reference.path
    assert choose_artefact(conn, tmp_path, "second") == variant_of_it.path
