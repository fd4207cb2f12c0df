"""`pgembed eval --tune-weights` on a real pair of tiny towers, through ONNX Runtime and the database."""

import json
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from fixtures_cli import pgembed
from fixtures_encoders import make_tiny_model

from pgembed.encoders.folder import folder_spec
from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.encoders.spec import EncoderSpec, TowerSpec
from pgembed.evaluation.beir import read_beir
from pgembed.evaluation.evaluate import evaluate_dataset
from pgembed.training.export import export_encoder

WORDS = ["parse", "load", "save", "split", "join", "count", "sort", "merge", "filter", "index", "search", "encode"]


def tower(folder: Path, slot: int, weight: float = 1.0) -> TowerSpec:
    (found,) = folder_spec(folder).towers
    return replace(found, name=folder.name, slot=slot, weight=weight)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("towers")
    return [make_tiny_model(folder / name, seed=seed) for name, seed in (("first", 1), ("second", 2))]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "qrels").mkdir()
    texts = [f"{a} the {b} of {c}" for a in WORDS for b, c in zip(WORDS, WORDS[3:], strict=False)][:80]
    with (folder / "corpus.jsonl").open("w") as corpus, (folder / "queries.jsonl").open("w") as queries:
        for n, text in enumerate(texts):
            corpus.write(json.dumps({"_id": f"d{n}", "text": f"def {text.replace(' ', '_')}(): pass"}) + "\n")
            queries.write(json.dumps({"_id": f"q{n}", "text": text}) + "\n")
    rows = "".join(f"q{n}\td{n}\t1\n" for n in range(len(texts)))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    return folder


def export(models: list[Path], out: Path, weights: tuple[float, float] = (1.0, 1.0)) -> Path:
    towers = (tower(models[0], 1536, weights[0]), tower(models[1], 1024, weights[1]))
    return export_encoder(EncoderSpec("pair", towers), out).path


def test_the_figure_of_a_weighting_is_what_the_exported_pair_measures(
    conn: psycopg.Connection, database_url: str, models: list[Path], dataset: Path, tmp_path: Path
) -> None:
    equal = export(models, tmp_path / "equal")
    outcome = pgembed(
        "eval", "--tune-weights", "--artefact", str(equal), "--dataset", str(dataset), "--json", "--dsn", database_url
    )
    assert outcome.code == 0, outcome.stderr
    (tuned,) = json.loads(outcome.stdout)["weights"]
    assert tuned["towers"] == ["first", "second"]
    (share,) = (trial for trial in tuned["trials"] if trial["share"] == 0.2)
    other = export(models, tmp_path / "other", tuple(share["weights"]))
    data = read_beir(dataset)
    for path, expected in ((equal, tuned["equal"]), (other, share)):
        measured = evaluate_dataset(conn, OnnxEncoder.load(path, threads=1), data)
        # ties of a rounding's width may fall the other way
        assert measured.mean("ndcg@10") == pytest.approx(expected["metrics"]["ndcg@10"], abs=0.01)


def test_it_is_told_to_people_and_refused_where_it_makes_no_sense(
    database_url: str, models: list[Path], dataset: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    pair = export(models, tmp_path / "pair")
    said = pgembed("eval", "--tune-weights", "--artefact", str(pair), "--dataset", str(dataset), "--dsn", database_url)
    assert said.code == 0
    assert "Best against equal weights" in said.stdout
    assert "alone" in said.stdout
    one = pgembed(
        "eval", "--tune-weights", "--artefact", str(tiny_encoder), "--dataset", str(dataset), "--dsn", database_url
    )
    assert one.code == 1
    assert "1 tower" in one.stderr
    gate = pgembed("eval", "--tune-weights", "--gate", "--artefact", str(pair), "--dsn", database_url)
    assert gate.code == 2
