"""What makes two data sets the same, and in which order ties come."""

from dataclasses import replace

import pytest

from pgembed.evaluation.dataset import Dataset
from pgembed.evaluation.held_out import mask_name

_DATASET = Dataset(
    "a", {"q1": "x", "q2": "y"}, {"d1": "one", "d2": "two", "d3": "one"}, {"q1": {"d1": 1}, "q2": {"d2": 1}}
)


def test_the_fingerprint_knows_neither_order_nor_name() -> None:
    turned = Dataset(
        "b",
        dict(reversed(_DATASET.queries.items())),
        dict(reversed(_DATASET.documents.items())),
        dict(reversed(_DATASET.judgements.items())),
        origin={"from": "elsewhere"},
    )
    assert turned.fingerprint == _DATASET.fingerprint


@pytest.mark.parametrize(
    "other",
    [
        replace(_DATASET, queries={"q1": "x", "q2": "z"}),
        replace(_DATASET, documents={**_DATASET.documents, "d4": "four"}),
        replace(_DATASET, judgements={"q1": {"d1": 1}, "q2": {"d3": 1}}),
        replace(_DATASET, judgements={"q1": {"d1": 2}, "q2": {"d2": 1}}),
    ],
)
def test_the_fingerprint_knows_every_text_and_judgement(other: Dataset) -> None:
    assert other.fingerprint != _DATASET.fingerprint


def test_ties_come_in_an_order_that_file_and_ids_do_not_decide() -> None:
    turned = replace(_DATASET, documents={"d3": "one", "d2": "two", "d1": "one"})
    assert turned.document_order == _DATASET.document_order
    # sha256 of "two" is 3fc4…, of "one" 7692…; equal texts go by id
    assert _DATASET.document_order == ["d2", "d1", "d3"]


@pytest.mark.parametrize(
    ("body", "symbol", "masked"),
    [
        ("def parse(x):\n    return parse(x[1:])", "parse", "def f(x):\n    return f(x[1:])"),
        ("def parse(x):\n    return parse_all(reparse)", "parse", "def f(x):\n    return parse_all(reparse)"),
        ("Foo::~Foo() { a = ~Foo; }", "~Foo", "Foo::f() { a = f; }"),
        ("bool operator==(T o)", "operator==", "bool f(T o)"),
        ("x = 1", "", "x = 1"),
    ],
)
def test_names_are_masked_as_whole_words(body: str, symbol: str, masked: str) -> None:
    assert mask_name(body, symbol) == masked
