"""`pgembed eval` from the command line: real code, tiny encoders, two generations."""

import email
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import Result
from typer.testing import CliRunner

from pgembed.cli.app import app
from pgembed.corpus.ingest import ingest
from pgembed.errors import EvaluationError
from pgembed.mining.pairs import find_pairs
from pgembed.mining.triplets import refresh_triplets
from pgembed.vectors.reindex import reindex

Run = Callable[..., Result]


@pytest.fixture
def run(database_url: str, conn: psycopg.Connection) -> Run:
    """A function that runs `pgembed eval` on a database that holds the standard library's `email`."""
    ingest(conn, Path(email.__file__).parent)
    find_pairs(conn)
    # a small package: most of its files must be held out for twenty docstrings to be
    conn.execute("UPDATE pgembed.mining_settings SET value = 0.1 WHERE name IN ('train_share', 'validation_share')")
    refresh_triplets(conn)

    def run_eval(*arguments: object) -> Result:
        return CliRunner().invoke(app, ["eval", "--dsn", database_url, *map(str, arguments)])

    return run_eval


def _json(result: Result) -> Any:
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return json.loads(result.stdout)


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    """A data set in BEIR's layout, four documents and four queries."""
    folder = tmp_path / "outside"
    (folder / "qrels").mkdir(parents=True)
    for name in ("corpus", "queries"):
        texts = ({"_id": n, "text": f"def {w}(): return {w}"} for n, w in enumerate(("read", "write", "sort", "send")))
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    (folder / "qrels" / "dev.tsv").write_text("".join(f"{n}\t{n}\t1\n" for n in range(4)))
    return folder


def test_held_out_code_is_shown_with_and_without_names(run: Run, tiny_encoder: Path, conn: psycopg.Connection) -> None:
    result = run("--artefact", tiny_encoder, "--mask-names", "--fill", "--max-documents", 150, "--max-queries", 20)
    assert result.exit_code == 0, result.output
    assert "names masked" in result.stdout
    assert "20 queries, 150 documents" in result.stdout
    assert result.stdout.count("recall@") == 3
    rows = conn.execute(
        "SELECT dataset, documents, metrics -> 'ndcg@10' ->> 'mean' FROM pgembed.evaluations ORDER BY id"
    )
    stored = rows.fetchall()
    assert [dataset for dataset, *_ in stored] == ["held-out", "held-out, names masked"]
    # bodies that differ in their names alone are one document once these are masked
    assert stored[0][1] == 150
    assert 140 < stored[1][1] <= 150
    for *_, mean in stored:
        assert f"{float(mean):.3f} [" in result.stdout


def test_a_data_set_from_outside_is_measured_once(run: Run, tiny_encoder: Path, beir: Path) -> None:
    first = _json(run("--artefact", tiny_encoder, "--dataset", beir, "--json"))["evaluations"][0]
    # queries equal their documents
    assert first["metrics"]["mrr@10"] == {"mean": 1, "low": 1, "high": 1}
    assert (first["dataset"], first["reused"]) == ("outside", False)
    second = _json(run("--artefact", tiny_encoder, "--dataset", beir, "--json"))["evaluations"][0]
    assert (second["id"], second["reused"]) == (first["id"], True)
    third = _json(run("--artefact", tiny_encoder, "--dataset", beir, "--json", "--again"))["evaluations"][0]
    assert third["id"] != first["id"]


@pytest.mark.real_weights
def test_generations_are_compared_and_gated(
    run: Run, conn: psycopg.Connection, database_url: str, tiny_encoder: Path, minilm_artefact: Path
) -> None:
    # a few dozen chunks are enough for the generations; the queries are drawn from all of them
    conn.execute(
        "DELETE FROM pgembed.code_chunks c USING pgembed.chunk_splits s WHERE s.chunk_id = c.id AND s.split <> 'test'"
    )
    limits = ("--max-documents", 60, "--max-queries", 20)
    early = run("--artefact", tiny_encoder, "--gate", *limits)
    assert early.exit_code == 0, early.output
    assert "no generation is active" in early.stdout

    good = reindex(database_url, minilm_artefact, activate=True).generation_id
    random = reindex(database_url, tiny_encoder).generation_id

    active = _json(run("--json", *limits))["evaluations"][0]
    assert active["encoder"] == "minilm"
    for candidate, passed in ((random, False), (good, True)):
        result = run("--generation", candidate, "--gate", *limits)
        assert result.exit_code == (0 if passed else 1), result.output
        assert ("Passed" if passed else "Failed") in result.stdout
    failed = run("--generation", random, "--gate", "--json", *limits)
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["passed"] is False

    (forth,) = _json(run("--compare", good, random, "--json", *limits))["comparisons"]
    assert forth["baseline"]["id"] == active["id"]  # measured once, whoever asks
    difference = forth["candidate"]["metrics"]["ndcg@10"]["mean"] - active["metrics"]["ndcg@10"]["mean"]
    assert forth["tests"]["ndcg@10"]["difference"] == pytest.approx(difference)
    shown = run("--compare", random, good, *limits)
    assert f"{-difference:+.3f} [" in shown.stdout


def test_wrong_usage_is_told_from_failure(run: Run, tiny_encoder: Path) -> None:
    assert run("--generation", 1, "--artefact", tiny_encoder).exit_code == 2
    assert run("--gate").exit_code == 2
    assert run("--split", "dev").exit_code == 2
    nothing = run()
    assert isinstance(nothing.exception, EvaluationError)
    assert "No generation is active" in str(nothing.exception)


@pytest.mark.parametrize("mode", ["lexical", "hybrid"])
def test_modes_are_measured_and_kept_apart(
    run: Run, conn: psycopg.Connection, tiny_encoder: Path, beir: Path, mode: str
) -> None:
    named = () if mode == "lexical" else ("--artefact", tiny_encoder)
    first = _json(run("--mode", mode, *named, "--dataset", beir, "--json"))["evaluations"][0]
    assert first["metrics"]["mrr@10"]["mean"] == 1  # queries equal their documents, in words too
    assert (first["settings"]["search"], first["settings"]["bm25_b"]) == (mode, 0.75)
    assert (first["encoder"], first["encoder_id"] is None) == (
        ("words alone", True) if mode == "lexical" else ("tiny", False)
    )
    again = _json(run("--mode", mode, *named, "--dataset", beir, "--json"))["evaluations"][0]
    assert (again["id"], again["reused"]) == (first["id"], True)
    # the vectors' own evaluation is another one, and so is the same under another setting
    vectors = _json(run("--artefact", tiny_encoder, "--dataset", beir, "--json"))["evaluations"][0]
    assert (vectors["reused"], vectors["settings"]["search"]) == (False, "exact")
    conn.execute("UPDATE pgembed.search_settings SET value = 0.5 WHERE name = 'bm25_b'")
    assert not _json(run("--mode", mode, *named, "--dataset", beir, "--json"))["evaluations"][0]["reused"]


def test_fusion_is_tuned_on_the_validation_split_and_stored_on_demand(
    run: Run, conn: psycopg.Connection, tiny_encoder: Path
) -> None:
    settings = "SELECT value FROM pgembed.search_settings WHERE name IN ('lexical_weight', 'rrf_k') ORDER BY name"
    before = conn.execute(settings).fetchall()
    limits = ("--artefact", tiny_encoder, "--max-documents", 60, "--max-queries", 15)
    shown = run("--tune-fusion", *limits)
    assert shown.exit_code == 0, shown.output
    assert "Nothing was stored" in shown.stdout
    assert conn.execute(settings).fetchall() == before
    (tuned,) = _json(run("--tune-fusion", "--apply", "--json", *limits))["fusions"]
    best = tuned["best"]
    assert conn.execute(settings).fetchall() == [(best["lexical_weight"],), (best["rrf_k"],)] != before
    # the figure is the one that an evaluation of the same split gives with these settings
    measured = _json(run("--mode", "hybrid", "--split", "validation", "--json", *limits))["evaluations"][0]
    assert measured["metrics"]["ndcg@10"]["mean"] == pytest.approx(best["value"])
    words = _json(run("--mode", "lexical", "--split", "validation", "--json", *limits[2:]))["evaluations"][0]
    assert words["metrics"]["ndcg@10"]["mean"] == pytest.approx(tuned["lexical"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--mode", "lexical", "--generation", 1),
        ("--apply",),
        ("--tune-fusion", "--compare", 1, 2),
    ],
)
def test_modes_used_wrongly(run: Run, arguments: tuple[object, ...]) -> None:
    assert run(*arguments).exit_code == 2
