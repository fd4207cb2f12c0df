"""The user's own code as a data set: docstrings that no training saw, and the bodies they were cut from.

Reads `code_chunks`, `chunk_locations`, `chunk_splits`.
"""

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

import psycopg

from pgembed.db.sql import query
from pgembed.errors import EvaluationError
from pgembed.evaluation.dataset import Dataset, one_language, text_id
from pgembed.evaluation.evaluate import Encoder, evaluate_dataset
from pgembed.evaluation.store import Evaluation
from pgembed.progress import SILENT, Progress

Connection = psycopg.Connection[Any]
Split = Literal["test", "validation", "train"]

MASK = "f"
"""What stands for a function's name where names are masked: the name of no function in particular."""

# As mining has them for anchors by default. Fixed here, so that other mining settings leave the measure as it is.
_QUALITY = {"min_tokens": 5, "min_lines": 2, "max_lines": 300, "min_words": 4, "max_words": 300}


@dataclass(frozen=True)
class HeldOut:
    """Which held-out code to evaluate on."""

    split: Split = "test"
    max_documents: int = 2000
    """Bodies to search among. Those that answer a query are always in, others of the split follow."""
    max_queries: int = 500
    mask_names: bool = False
    """Replace each function's name in its body: a name often gives the answer away."""
    fill_from_others: bool = False
    """Fill up with bodies of other splits where this one is too small; training may have seen those."""


def read_held_out(conn: Connection, chosen: HeldOut) -> Dataset:
    """Return the data set: the same database content gives the same one, whatever the ids are.

    Raises:
        EvaluationError: the split holds no docstring that can be searched by.
    """
    rows = conn.execute(query("held_out_documents"), {**asdict(chosen), **_QUALITY}).fetchall()
    queries: dict[str, str] = {}
    documents: dict[str, str] = {}
    judgements: dict[str, dict[str, int]] = {}
    spoken: dict[str, set[str]] = {}
    for body, symbol, language, answered in rows:
        text = mask_name(body, symbol) if chosen.mask_names else body
        document = text_id(text)  # bodies that are equal, or become so by masking, are one document
        documents[document] = text
        for docstring in answered or ():
            queries[text_id(docstring)] = docstring
            judgements.setdefault(text_id(docstring), {})[document] = 1
            spoken.setdefault(text_id(docstring), set()).add(language)
    if not queries:
        raise _nothing_held_out(conn, chosen.split)
    name = "held-out, names masked" if chosen.mask_names else "held-out"
    languages = {query: one_language(answers) for query, answers in spoken.items()}
    return Dataset(name, queries, documents, judgements, asdict(chosen), languages)


def evaluate_held_out(
    conn: Connection,
    encoder: Encoder,
    *,
    split: Split = "test",
    max_documents: int = 2000,
    max_queries: int = 500,
    mask_names: bool = False,
    fill_from_others: bool = False,
    again: bool = False,
    progress: Progress = SILENT,
) -> Evaluation:
    """Measure `encoder` on held-out code, docstring → body without it; see `HeldOut` and `evaluate_dataset`.

    Raises:
        EvaluationError: the split holds no docstring that can be searched by.
        EncoderError: the encoder gives no usable vector for a text.
    """
    chosen = HeldOut(split, max_documents, max_queries, mask_names, fill_from_others)
    return evaluate_dataset(conn, encoder, read_held_out(conn, chosen), again=again, progress=progress)


def mask_name(body: str, symbol: str) -> str:
    """Return `body` with every whole-word occurrence of `symbol` replaced by MASK."""
    if not symbol:
        return body
    return re.sub(rf"(?<!\w){re.escape(symbol)}(?!\w)", MASK, body)


def _nothing_held_out(conn: Connection, split: str) -> EvaluationError:
    row = conn.execute(query("count_split_chunks"), {"split": split}).fetchone()
    chunks, placed, in_split = row or (0, 0, 0)
    if not chunks:
        return EvaluationError("There is no code in the database.", remedy="pgembed ingest PATH, then pgembed pairs.")
    if not placed:
        return EvaluationError(f"None of the {chunks:,} chunks is in a split yet.", remedy="Run `pgembed pairs`.")
    return EvaluationError(
        f"The split {split!r} holds {in_split:,} of {placed:,} chunks, and none of them has a docstring of at least "
        f"{_QUALITY['min_words']} words.",
        remedy="Ingest more code, or evaluate on a data set from outside: pgembed eval --dataset DIR.",
    )
