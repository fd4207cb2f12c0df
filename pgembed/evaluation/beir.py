"""Data sets in BEIR's layout: corpus.jsonl, queries.jsonl (either may be gzipped) and qrels/<split>.tsv.

Source: Thakur et al. 2021, "BEIR: A heterogenous benchmark for zero-shot evaluation of information retrieval models".
"""

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, NoReturn, cast

from pgembed.errors import EvaluationError
from pgembed.evaluation.dataset import Dataset, one_language
from pgembed.evaluation.evaluate import evaluate_dataset

__all__ = ["evaluate_dataset", "read_beir"]

_LAYOUT = "BEIR's layout is corpus.jsonl, queries.jsonl (or .jsonl.gz) and qrels/<split>.tsv."


def read_beir(folder: Path, split: str | None = None) -> Dataset:
    """Read a folder. A document is its title and its text; queries without a judgement are left out.

    A query's language is what "language", or "metadata": {"language": …}, says in its record or in its answers'.

    `split` names the file in qrels/; without it, `test` where there is one, else the only one.

    Raises:
        EvaluationError: a file is missing, or broken; the message names the file and the line.
    """
    if not folder.is_dir():
        raise EvaluationError(f"{folder} is not a folder.", remedy=_LAYOUT)
    spoken: dict[str, str] = {}
    asked: dict[str, str] = {}
    documents = dict(_texts(_find(folder, "corpus"), spoken, with_title=True))
    all_queries = dict(_texts(_find(folder, "queries"), asked, with_title=False))
    judgements_file = _judgements_file(folder / "qrels", split)
    judgements: dict[str, dict[str, int]] = {}
    for number, line in _lines(judgements_file):
        query, document, relevance = _judgement(judgements_file, number, line)
        if relevance is None:  # the heading
            continue
        if query not in all_queries:
            _broken(judgements_file, number, f"there is no query {query!r}")
        if document not in documents:
            _broken(judgements_file, number, f"there is no document {document!r} in the corpus")
        judgements.setdefault(query, {})[document] = relevance
    judgements = {query: judged for query, judged in judgements.items() if max(judged.values()) > 0}
    if not judgements:
        raise EvaluationError(f"{judgements_file} calls no document relevant.", remedy=_LAYOUT)
    return Dataset(
        name=folder.resolve().name,
        queries={query: all_queries[query] for query in judgements},
        documents=documents,
        judgements=judgements,
        origin={"layout": "BEIR", "split": judgements_file.stem},
        languages={q: known for q, judged in judgements.items() if (known := _language(q, judged, asked, spoken))},
    )


def _language(query: str, judged: Mapping[str, int], asked: Mapping[str, str], spoken: Mapping[str, str]) -> str | None:
    """Return what the query's own record says, else what those of all its answers say."""
    if query in asked:
        return asked[query]
    answers = [document for document, relevance in judged.items() if relevance > 0]
    return one_language({spoken[a] for a in answers}) if all(a in spoken for a in answers) else None


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"):
        if candidate.is_file():
            return candidate
    raise EvaluationError(f"{folder} has neither {name}.jsonl nor {name}.jsonl.gz.", remedy=_LAYOUT)


def _judgements_file(folder: Path, split: str | None) -> Path:
    found = {path.stem: path for path in sorted(folder.glob("*.tsv"))}
    chosen = split or ("test" if "test" in found else next(iter(found)) if len(found) == 1 else None)
    if chosen in found:
        return found[chosen]
    if not found:
        raise EvaluationError(f"{folder} holds no .tsv file.", remedy=_LAYOUT)
    asked = f"no split {split!r}" if split else "several splits and none is called test"
    raise EvaluationError(f"{folder} has {asked}.", remedy=f"Choose one: {', '.join(found)}.")


def _texts(path: Path, languages: dict[str, str], *, with_title: bool) -> Iterator[tuple[str, str]]:
    """Yield (id, text); note in `languages` what a record says of its language, itself or in its metadata."""
    seen = set()
    for number, line in _lines(path):
        try:
            record = json.loads(line)
        except ValueError as error:
            _broken(path, number, f"not JSON: {error}")
        if not isinstance(record, dict) or "_id" not in record or not isinstance(record.get("text"), str):
            _broken(path, number, 'needs an object with "_id" and "text"')
        identifier = str(record["_id"])
        if identifier in seen:
            _broken(path, number, f"the _id {identifier!r} is there twice")
        seen.add(identifier)
        metadata = record.get("metadata")
        language = record.get("language") or (metadata.get("language") if isinstance(metadata, dict) else None)
        if isinstance(language, str) and language:
            languages[identifier] = language
        title = str(record.get("title") or "") if with_title else ""
        yield identifier, f"{title} {record['text']}" if title else record["text"]
    if not seen:
        raise EvaluationError(f"{path} is empty.", remedy=_LAYOUT)


def _judgement(path: Path, number: int, line: str) -> tuple[str, str, int | None]:
    fields = line.split("\t")
    if len(fields) != 3:
        _broken(path, number, f"needs three fields between tabs and has {len(fields)}")
    try:
        return fields[0], fields[1], int(fields[2])
    except ValueError:
        if number == 1:
            return fields[0], fields[1], None
        _broken(path, number, f"the relevance {fields[2]!r} is not a whole number")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of the lines that are not blank."""
    number = 0
    try:
        with cast("IO[bytes]", gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
            for number, line in enumerate(file, 1):
                if text := line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n"):
                    yield number, text
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{path}, line {number}: not UTF-8 ({error.reason}).") from error
    except (OSError, EOFError) as error:  # gzip reports damage by both
        raise EvaluationError(f"{path} cannot be read, after line {number}: {error}") from error


def _broken(path: Path, number: int, what: str) -> NoReturn:
    raise EvaluationError(f"{path}, line {number}: {what}.", remedy=_LAYOUT)
