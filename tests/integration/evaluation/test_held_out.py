"""Which docstrings and bodies make up the held-out data set."""

from collections.abc import Callable

import psycopg
import pytest

from pgembed.errors import EvaluationError
from pgembed.evaluation.dataset import Dataset, text_id
from pgembed.evaluation.held_out import HeldOut, read_held_out

AddChunk = Callable[..., int]


def _answers(dataset: Dataset) -> dict[str, set[str]]:
    """Query text → texts that answer it."""
    return {
        dataset.queries[query]: {dataset.documents[document] for document in judged}
        for query, judged in dataset.judgements.items()
    }


def test_docstrings_of_the_split_are_queries_and_its_bodies_documents(
    conn: psycopg.Connection, add_chunk: AddChunk
) -> None:
    add_chunk("def a(): ...", "Sort the rows by key.")
    add_chunk("def b(): ...", "Open a socket and wait.", kind="method")
    add_chunk("def bare(): ...")
    add_chunk("def trained(): ...", "Seen by the training before.", split="train")
    add_chunk("def straddles(): ...", "In no split at all.", split=None)
    dataset = read_held_out(conn, HeldOut())
    assert _answers(dataset) == {
        "Sort the rows by key.": {"def a(): ..."},
        "Open a socket and wait.": {"def b(): ..."},
    }
    assert set(dataset.documents.values()) == {"def a(): ...", "def b(): ...", "def bare(): ..."}
    validation = {"def v(): ...", "def w(): ..."}
    for body in validation:
        add_chunk(body, "For choosing, not for showing.", split="validation")
    chosen = read_held_out(conn, HeldOut(split="validation"))
    assert _answers(chosen) == {"For choosing, not for showing.": validation}


def test_what_says_too_little_or_is_trivial_is_left_out(conn: psycopg.Connection, add_chunk: AddChunk) -> None:
    add_chunk("def good(): ...", "Four words are enough.")
    add_chunk("def short(): ...", "Three words only.")
    add_chunk("def manual(): ...", "word " * 301)
    add_chunk("def trivial(): ...", "A function without any content.", tokens=4)
    add_chunk("def line(): ...", "A function of one line.", lines=1)
    add_chunk("class Whole: ...", "A class is not a function.", kind="class")
    add_chunk("def test_it(): ...", "A test of something else.", path="tests/unit/test_it.py")
    dataset = read_held_out(conn, HeldOut())
    assert list(dataset.queries.values()) == ["Four words are enough."]
    assert set(dataset.documents.values()) == {"def good(): ...", "def short(): ...", "def manual(): ..."}


def test_a_docstring_on_several_bodies_is_answered_by_each(conn: psycopg.Connection, add_chunk: AddChunk) -> None:
    add_chunk("def a(): ...", "Return the size in bytes.")
    add_chunk("def b(): ...", "return the  size\n in bytes.")
    # the same body under two docstrings is one document that answers both
    add_chunk("def c(): ...", "Close the file at last.")
    add_chunk("def c(): ...", "Release what is held open.")
    dataset = read_held_out(conn, HeldOut())
    assert _answers(dataset) == {
        "Return the size in bytes.": {"def a(): ...", "def b(): ..."},
        "Close the file at last.": {"def c(): ..."},
        "Release what is held open.": {"def c(): ..."},
    }
    assert len(dataset.documents) == 3


def test_the_limits_hold_and_every_answer_stays(conn: psycopg.Connection, add_chunk: AddChunk) -> None:
    for number in range(30):
        add_chunk(f"def documented_{number}(): ...", f"Do the thing number {number}.")
        add_chunk(f"def bare_{number}(): ...")
    dataset = read_held_out(conn, HeldOut(max_queries=10, max_documents=25))
    assert (len(dataset.queries), len(dataset.documents)) == (10, 25)
    assert all(set(judged) <= set(dataset.documents) for judged in dataset.judgements.values())
    tight = read_held_out(conn, HeldOut(max_queries=10, max_documents=3))
    assert set(tight.documents) == {document for judged in tight.judgements.values() for document in judged}


def test_other_splits_fill_up_but_never_with_what_answers_too(conn: psycopg.Connection, add_chunk: AddChunk) -> None:
    add_chunk("def a(): ...", "Sort the rows by key.")
    add_chunk("def twin(): ...", "sort the rows by key.", split="train")
    for number in range(5):
        add_chunk(f"def trained_{number}(): ...", split="train")
    add_chunk("def straddles(): ...", split=None)
    assert len(read_held_out(conn, HeldOut()).documents) == 1
    filled = read_held_out(conn, HeldOut(fill_from_others=True))
    assert len(filled.documents) == 7
    assert "def twin(): ..." not in filled.documents.values()
    assert _answers(filled) == {"Sort the rows by key.": {"def a(): ..."}}
    assert len(read_held_out(conn, HeldOut(fill_from_others=True, max_documents=4)).documents) == 4


def test_masking_hides_the_name_and_joins_what_becomes_equal(conn: psycopg.Connection, add_chunk: AddChunk) -> None:
    add_chunk("def sort_rows(x): return sort_rows(x)", "Sort the rows by key.", symbol="sort_rows")
    add_chunk("def get_a(x): return x", "Give the first of them.", symbol="get_a")
    add_chunk("def get_b(x): return x", "Give the second of them.", symbol="get_b")
    plain, masked = (read_held_out(conn, HeldOut(mask_names=mask)) for mask in (False, True))
    assert _answers(masked) == {
        "Sort the rows by key.": {"def f(x): return f(x)"},
        "Give the first of them.": {"def f(x): return x"},
        "Give the second of them.": {"def f(x): return x"},
    }
    assert masked.queries == plain.queries
    assert masked.fingerprint != plain.fingerprint


def test_the_order_of_insertion_and_the_ids_change_nothing(conn: psycopg.Connection, add_chunk: AddChunk) -> None:
    texts = [(f"def f_{number}(): ...", f"Do the thing number {number}.") for number in range(40)]
    for body, docstring in texts:
        add_chunk(body, docstring)
    chosen = HeldOut(max_queries=15, max_documents=30)
    first = read_held_out(conn, chosen)
    conn.execute("DELETE FROM pgembed.code_chunks")
    for body, docstring in reversed(texts):
        add_chunk(body, docstring)
    again = read_held_out(conn, chosen)
    assert again.fingerprint == first.fingerprint
    assert set(first.queries) == {text_id(text) for text in first.queries.values()}


def test_an_empty_split_is_explained(conn: psycopg.Connection, add_chunk: AddChunk) -> None:
    with pytest.raises(EvaluationError, match="no code in the database"):
        read_held_out(conn, HeldOut())
    add_chunk("def a(): ...", "Sort the rows by key.", split="train")
    with pytest.raises(EvaluationError, match=r"'test' holds 0 of 1 chunks"):
        read_held_out(conn, HeldOut())
    conn.execute("DELETE FROM pgembed.chunk_splits")
    with pytest.raises(EvaluationError, match="pgembed pairs"):
        read_held_out(conn, HeldOut())
