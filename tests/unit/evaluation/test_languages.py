"""Scores by language: means worked out by hand, and where a data set's languages come from."""

import json
from pathlib import Path

import pytest

from pgembed.evaluation.beir import read_beir
from pgembed.evaluation.dataset import Dataset
from pgembed.evaluation.store import by_language


def test_means_are_over_the_queries_of_a_language() -> None:
    scores = {f"q{n}": {"ndcg@10": value} for n, value in enumerate((1.0, 0.5, 0.0, 0.25, 0.9))}
    found = by_language(scores, {"q0": "python", "q1": "go", "q2": "python", "q3": "python"})
    assert found.keys() == {"python", "go"}  # q4's is not known, and counts nowhere
    assert found["python"]["mean"] == pytest.approx((1.0 + 0.0 + 0.25) / 3)
    assert found["python"]["queries"] == 3
    assert found["go"] == {"mean": 0.5, "low": 0.5, "high": 0.5, "queries": 1}
    assert 0.0 <= found["python"]["low"] < found["python"]["mean"] < found["python"]["high"] <= 1.0
    assert by_language(scores, {}) == {}


def _folder(path: Path, queries: list[dict[str, object]], documents: list[dict[str, object]], qrels: str) -> Path:
    (path / "qrels").mkdir()
    for name, records in (("queries", queries), ("corpus", documents)):
        (path / f"{name}.jsonl").write_text("".join(json.dumps({"text": "x", **one}) + "\n" for one in records))
    (path / "qrels" / "test.tsv").write_text(qrels)
    return path


def test_a_record_says_its_language_or_its_answers_do(tmp_path: Path) -> None:
    queries = [{"_id": "own", "language": "rust"}, *({"_id": name} for name in ("theirs", "several", "half", "none"))]
    documents = [
        {"_id": "g", "metadata": {"language": "go"}},
        {"_id": "p", "language": "python"},
        {"_id": "x", "metadata": "no object", "language": 5},
    ]
    qrels = "own\tg\t1\ntheirs\tg\t2\ntheirs\tp\t0\nseveral\tg\t1\nseveral\tp\t1\nhalf\tg\t1\nhalf\tx\t1\nnone\tx\t1\n"
    dataset = read_beir(_folder(tmp_path, queries, documents, qrels))
    # what answers one query in part is unknown, so the query's is
    assert dataset.languages == {"own": "rust", "theirs": "go", "several": "several"}


def test_languages_do_not_make_it_another_data_set() -> None:
    plain = Dataset("d", {"q": "a"}, {"d": "b"}, {"q": {"d": 1}})
    assert Dataset("d", {"q": "a"}, {"d": "b"}, {"q": {"d": 1}}, languages={"q": "c"}).fingerprint == plain.fingerprint
