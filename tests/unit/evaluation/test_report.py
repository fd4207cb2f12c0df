"""The HTML report: read back by a parser of its own, with hostile texts in every place that takes one."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgembed.errors import EvaluationError
from pgembed.evaluation.dataset import Dataset
from pgembed.evaluation.lineage import Curve, IndexState, Lineage, Run
from pgembed.evaluation.metrics import METRICS
from pgembed.evaluation.report import Subject, render, won_and_lost, write_report
from pgembed.evaluation.store import Evaluation, compare_evaluations

HOSTILE = (
    "</pre></style><script src='https://evil.example/x.js'>alert(1)</script>"
    "\"'><img src=//evil.example/y onerror=a()>{{ 123457 * 3 }}"
)
_VOID = {"meta", "br", "img", "link", "input"}
_LOADING = {"src", "href", "srcset", "action", "data", "poster", "background", "formaction", "xlink:href"}


class _Page(HTMLParser):
    """Tags, attributes and text; fails where an element is closed that is not open."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.cells: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs
        if tag not in _VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)
        if self.cells and ("td" in self.open or "th" in self.open):
            self.cells[-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def _evaluation(number: int, dataset: Dataset, ndcg: list[float], **metrics: dict[str, float]) -> Evaluation:
    per_query = {
        q: dict.fromkeys(METRICS, 0.5) | {"ndcg@10": value} for q, value in zip(dataset.queries, ndcg, strict=True)
    }
    means = {metric: float(np.mean([scores[metric] for scores in per_query.values()])) for metric in METRICS}
    intervals = {m: {"mean": v, "low": v - 0.01, "high": v + 0.01} for m, v in means.items()}
    return Evaluation(
        id=number, encoder_id=number, encoder=f"encoder {HOSTILE}", dataset=dataset.name,
        fingerprint=dataset.fingerprint, documents=len(dataset.documents), queries=len(dataset.queries), settings={},
        metrics=intervals | metrics, per_query=per_query, created_at=datetime.now(UTC),
    )  # fmt: skip


def _dataset(name: str = "held-out", count: int = 8) -> Dataset:
    ids = [f"q{n}" for n in range(count)]
    return Dataset(
        name,
        {q: f"query of {q} {HOSTILE}" for q in ids},
        {f"d{q}": f"answer to {q} {HOSTILE}" for q in ids},
        {q: {f"d{q}": 1} for q in ids},
        origin={"split": HOSTILE},
        languages=dict.fromkeys(ids, HOSTILE),
    )


def _subjects(dataset: Dataset) -> list[Subject]:
    run = Run(
        run_id=3, view=HOSTILE, filters={HOSTILE: HOSTILE, "kind": None}, seed=7, data_fingerprint="d1", base=HOSTILE,
        base_fingerprint="b1", hyperparameters={"steps": 80, HOSTILE: HOSTILE}, package_version="0.1", tuned="t",
        code_revision=HOSTILE, tuned_fingerprint="t1", last_loss=0.1, better=True, started_at=datetime.now(UTC),
        finished_at=None,
    )  # fmt: skip
    curve = Curve([(n, 1 / (n + 1)) for n in range(30)], [(0, 0.5), (10, 0.6), (20, 0.65)])
    lineage = Lineage(f"tuned {HOSTILE}", "f1", HOSTILE, [run], curve)
    calibration = {"k": 10, "queries": 100, "target": 0.95, "recall": [[1, 0.4], [8, 0.9], [15, 0.953]]}
    index = IndexState(2, "active", "ivfflat", 88, 15, 0.953, 7738, calibration)
    measured = {"k": 10, "recall": 0.947, "p50_ms": 1.234, "p95_ms": 5.678, "queries": 8, "rows": 7738, "effort": 15}
    spoken: dict[str, dict[str, float]] = {
        "ndcg@10 go": {"mean": 0.25, "low": 0.2, "high": 0.3, "queries": 3},
        f"ndcg@10 {HOSTILE}": {"mean": 0.75, "low": 0.7, "high": 0.8, "queries": 5},
    }
    before = _evaluation(1, dataset, [1, 0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], **spoken)
    after = _evaluation(2, dataset, [0, 1, 0.75, 0.5, 0.5, 0.5, 0.5, 0.4], **spoken, **{"index 2": measured})
    return [Subject(f"generation 1 {HOSTILE}", [before]), Subject("generation 2", [after], lineage, index)]


@pytest.fixture
def page() -> _Page:
    """A report of a comparison in which every text is hostile."""
    dataset = _dataset()
    subjects = _subjects(dataset)
    comparison = compare_evaluations(subjects[0].evaluations[0], subjects[1].evaluations[0])
    return _Page(render([dataset], subjects, [comparison], verdict=f"Passed: {HOSTILE}"))


def test_it_asks_nobody_for_anything_and_runs_nothing(page: _Page) -> None:
    assert not page.tags.keys() & {"script", "img", "link", "iframe", "object", "embed", "form", "base", "a", "image"}
    assert not [pair for pair in page.attributes if pair[0] in _LOADING or pair[0].startswith("on")]
    assert not [value for _, value in page.attributes if value and "//" in value and "evil.example" not in value]
    policies = [value for name, value in page.attributes if name == "content" and value and "default-src" in value]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_hostile_texts_are_shown_as_they_are(page: _Page) -> None:
    shown = " ".join(HOSTILE.split())
    assert page.text.count(shown) > 20
    assert "370371" not in page.text  # nor is a text a template
    assert page.tags["style"] == page.tags["html"] == 1


def test_its_figures_are_those_of_the_evaluations(page: _Page) -> None:
    # means of the eight values above: 4/8 and 4.15/8
    assert "0.500 [0.490, 0.510]" in page.cells
    assert "0.519 [0.509, 0.529]" in page.cells
    assert any(cell.startswith("+0.019 [") for cell in page.cells)
    assert page.cells[(go := page.cells.index("go")) : go + 3] == ["go", "3", "0.250 [0.200, 0.300]"]
    assert "recall@10 0.947 against exact search; 1.23 ms median, 5.68 ms p95; 8 queries" in page.text
    assert "ivfflat, 15 of 88 lists" in page.cells
    assert "steps 80" in page.text
    # means, differences, recall against probes, losses, validations
    assert page.tags["svg"] == 5


def test_light_and_dark_are_both_styled() -> None:
    html = render([_dataset()], _subjects(_dataset())[:1], [])
    assert "prefers-color-scheme: dark" in html
    assert "color-scheme: light dark" in html
    assert "Not a generation" in html


def test_queries_won_and_lost_are_those_that_changed_most() -> None:
    dataset = _dataset()
    before, after = (subject.evaluations[0] for subject in _subjects(dataset))
    won, lost = won_and_lost(dataset, [before, after])
    assert [one.scores for one in won] == [(0, 1), (0.5, 0.75)]
    assert [one.scores for one in lost] == [(1, 0), (0.5, 0.4)]
    assert won[0].query.startswith("query of q1 ")
    assert won[0].answer.startswith("answer to q1 ")
    first, missed = won_and_lost(dataset, [before])
    assert [[one.scores for one in group] for group in (first, missed)] == [[(1,)], [(0,)]]
    many = _dataset(count=20)
    flat, better = (_evaluation(1, many, [value] * 20) for value in (0.1, 0.9))
    assert [len(group) for group in won_and_lost(many, [flat, better])] == [5, 0]


def test_both_columns_of_held_out_code_are_there() -> None:
    plain, masked = _dataset(), replace(_dataset(), name="held-out, names masked")
    (subject, *_) = _subjects(plain)
    other = _evaluation(3, masked, [0.125] * 8)
    page = _Page(render([plain, masked], [replace(subject, evaluations=[*subject.evaluations, other])], []))
    row = page.cells.index("ndcg@10")
    assert page.cells[row + 1 : row + 3] == ["0.500 [0.490, 0.510]", "0.125 [0.115, 0.135]"]
    headings = [cell for cell in page.cells if cell.startswith("held-out")]
    assert any(cell.startswith("held-out, names masked") for cell in headings)


def test_a_report_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    dataset = _dataset()
    subjects: Any = _subjects(dataset)[:1]
    with pytest.raises(EvaluationError, match="No such file"):
        write_report(tmp_path / "nowhere" / "report.html", [dataset], subjects, [])
    half = replace(dataset, queries=dict.fromkeys(dataset.queries, f"half {chr(0xD800)} a pair"))
    write_report(tmp_path / "report.html", [half], subjects, [])
    assert "half \\ud800 a pair" in (tmp_path / "report.html").read_text(encoding="utf-8")
