"""Data sets in BEIR's layout: what is read, and what is said about broken ones."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pgembed.errors import EvaluationError
from pgembed.evaluation.beir import read_beir

_CORPUS = [
    {"_id": "d1", "title": "Sorting", "text": "def sort(x): ..."},
    {"_id": "d2", "title": "", "text": "def größe(): ..."},
    {"_id": "d3", "text": "def unjudged(): ..."},
]
_QUERIES = [
    {"_id": "q1", "text": "sort a list"},
    {"_id": "q2", "text": "size of it"},
    {"_id": "q3", "text": "of another split"},
]
_JUDGEMENTS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td2\t1\n"


def _write(path: Path, records: list[dict[str, str]]) -> None:
    text = "".join(json.dumps(record) + "\n" for record in records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "some-set"
    (made / "qrels").mkdir(parents=True)
    _write(made / "corpus.jsonl", _CORPUS)
    _write(made / "queries.jsonl", _QUERIES)
    (made / "qrels" / "test.tsv").write_text(_JUDGEMENTS)
    return made


def test_titles_texts_and_judgements_are_read(folder: Path) -> None:
    dataset = read_beir(folder)
    assert dataset.name == "some-set"
    assert dataset.documents == {
        "d1": "Sorting def sort(x): ...",
        "d2": "def größe(): ...",
        "d3": "def unjudged(): ...",
    }
    assert dataset.queries == {"q1": "sort a list", "q2": "size of it"}  # q3 has no judgement
    assert dataset.judgements == {"q1": {"d1": 2, "d2": 0}, "q2": {"d2": 1}}
    assert dataset.origin["split"] == "test"


def test_gzipped_files_and_windows_line_ends_are_the_same_data_set(folder: Path) -> None:
    plain = read_beir(folder)
    for name, records in (("corpus", _CORPUS), ("queries", _QUERIES)):
        (folder / f"{name}.jsonl").unlink()
        _write(folder / f"{name}.jsonl.gz", records)
    (folder / "qrels" / "test.tsv").write_bytes(b"\xef\xbb\xbf" + _JUDGEMENTS.replace("\n", "\r\n").encode() + b"\r\n")
    assert read_beir(folder).fingerprint == plain.fingerprint


def test_queries_without_a_relevant_document_are_left_out(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").write_text("q1\td1\t0\nq2\td2\t1\n")  # and without a heading
    assert list(read_beir(folder).queries) == ["q2"]


def test_the_split_is_chosen(folder: Path) -> None:
    (folder / "qrels" / "dev.tsv").write_text("q3\td3\t1\n")
    assert list(read_beir(folder, "dev").queries) == ["q3"]
    assert list(read_beir(folder).queries) == ["q1", "q2"]
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "train.tsv")
    with pytest.raises(EvaluationError, match=r"several splits(?s:.)*dev, train"):
        read_beir(folder)
    with pytest.raises(EvaluationError, match=r"no split 'test'(?s:.)*dev, train"):
        read_beir(folder, "test")


def _append(name: str, line: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / name).open("ab") as file:
            file.write(line)

    return change


def _cut_gzip(folder: Path) -> None:
    whole = gzip.compress((folder / "corpus.jsonl").read_bytes())
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.jsonl.gz").write_bytes(whole[:-12])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_append("corpus.jsonl", b"{not json\n"), r"corpus\.jsonl, line 4: not JSON"),
        (_append("corpus.jsonl", b'["a list"]\n'), r"corpus\.jsonl, line 4: needs an object"),
        (_append("corpus.jsonl", b'{"_id": "d4"}\n'), r'corpus\.jsonl, line 4: needs an object with "_id" and "text"'),
        (
            _append("corpus.jsonl", b'{"_id": "d1", "text": "x"}\n'),
            r"corpus\.jsonl, line 4: the _id 'd1' is there twice",
        ),
        (_append("queries.jsonl", b'{"_id": "q4", "text": "\xff"}\n'), r"queries\.jsonl, line 4: not UTF-8"),
        (_append("qrels/test.tsv", b"q1 d1 1\n"), r"test\.tsv, line 5: needs three fields between tabs and has 1"),
        (_append("qrels/test.tsv", b"q1\td1\tyes\n"), r"test\.tsv, line 5: the relevance 'yes' is not a whole number"),
        (_append("qrels/test.tsv", b"q9\td1\t1\n"), r"test\.tsv, line 5: there is no query 'q9'"),
        (_append("qrels/test.tsv", b"q1\td9\t1\n"), r"test\.tsv, line 5: there is no document 'd9'"),
        (_cut_gzip, r"corpus\.jsonl\.gz cannot be read, after line \d"),
        (lambda folder: (folder / "queries.jsonl").unlink(), "neither queries.jsonl nor queries.jsonl.gz"),
        (lambda folder: (folder / "queries.jsonl").write_text("\n"), r"queries\.jsonl is empty"),
        (lambda folder: (folder / "qrels" / "test.tsv").unlink(), r"qrels holds no \.tsv file"),
        (lambda folder: (folder / "qrels" / "test.tsv").write_text("q1\td1\t0\n"), "calls no document relevant"),
    ],
)
def test_what_is_broken_is_named_by_file_and_line(folder: Path, change: Callable[[Path], None], said: str) -> None:
    change(folder)
    with pytest.raises(EvaluationError, match=said):
        read_beir(folder)


def test_a_folder_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="is not a folder"):
        read_beir(tmp_path / "nothing")
