"""An evaluation as one HTML file that asks no other host for anything: tables, plots, examples, lineage."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pgembed import __version__
from pgembed.errors import EvaluationError
from pgembed.evaluation.charts import Series, histogram, intervals, lines
from pgembed.evaluation.dataset import Dataset
from pgembed.evaluation.lineage import IndexState, Lineage
from pgembed.evaluation.metrics import METRICS
from pgembed.evaluation.store import Comparison, Evaluation

_EXAMPLES = 5
_TEXT = 600  # characters of a text that are shown
_FOUND, _MISSED = 1.0, 0.0  # nDCG@10 of a query answered first, and of one not answered in ten


@dataclass(frozen=True)
class Subject:
    """What was evaluated: its evaluations, one for each data set, and what is known of it."""

    name: str
    evaluations: Sequence[Evaluation]
    lineage: Lineage | None = None
    index: IndexState | None = None


@dataclass(frozen=True)
class Example:
    """A query, what it scored in nDCG@10, and a document that answers it."""

    query: str
    language: str
    scores: tuple[float, ...]
    """Of each subject, in their order."""
    answer: str


def write_report(
    file: Path,
    datasets: Sequence[Dataset],
    subjects: Sequence[Subject],
    comparisons: Sequence[Comparison],
    *,
    verdict: str | None = None,
) -> None:
    """Write the report about one subject, or about the baseline and the candidate with their comparisons.

    Raises:
        EvaluationError: the file cannot be written.
    """
    html = render(datasets, subjects, comparisons, verdict=verdict)
    try:
        # a text from a data set may hold half a surrogate pair, which no file does
        file.write_text(html, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise EvaluationError(f"The report cannot be written to {file}: {error.strerror}.") from error


def render(
    datasets: Sequence[Dataset],
    subjects: Sequence[Subject],
    comparisons: Sequence[Comparison],
    *,
    verdict: str | None = None,
) -> str:
    """Return the report's HTML. Every text is escaped; only the plots, which escape theirs, go in as they are."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja").render(
        now=datetime.now().astimezone(),
        version=__version__,
        verdict=verdict,
        metrics=METRICS,
        datasets=datasets,
        subjects=subjects,
        comparisons=comparisons,
        languages=_languages(subjects),
        examples=[_examples(data, [s.evaluations[n] for s in subjects]) for n, data in enumerate(datasets)],
        interval_plots=[Markup(_intervals(subjects, n)) for n in range(len(datasets))],  # noqa: S704
        difference_plots=[Markup(_differences(comparison)) for comparison in comparisons],  # noqa: S704
        recall_plots=[Markup(_recall(subject.index)) for subject in subjects],  # noqa: S704
        training_plots=[[Markup(plot) for plot in _training(subject.lineage)] for subject in subjects],  # noqa: S704
    )


def won_and_lost(dataset: Dataset, evaluations: Sequence[Evaluation]) -> tuple[list[Example], list[Example]]:
    """Return at most five queries of each kind, the clearest first; equal ones in the order of their ids.

    Of two evaluations: those that the second answers better than the first by nDCG@10, and those it answers worse. Of
    one: those answered first, and those not answered within ten.
    """
    scored = {q: tuple(e.per_query[q]["ndcg@10"] for e in evaluations) for q in sorted(dataset.queries)}
    if len(evaluations) == 2:
        gains = {q: b - a for q, (a, b) in scored.items()}
        won = [q for q in sorted(gains, key=lambda q: -gains[q]) if gains[q] > 0]
        lost = [q for q in sorted(gains, key=lambda q: gains[q]) if gains[q] < 0]
    else:
        won = [q for q, values in scored.items() if values[0] == _FOUND]
        lost = [q for q, values in scored.items() if values[0] == _MISSED]
    shown = [[_example(dataset, q, scored[q]) for q in chosen[:_EXAMPLES]] for chosen in (won, lost)]
    return shown[0], shown[1]


def _example(dataset: Dataset, identifier: str, scores: tuple[float, ...]) -> Example:
    judged = dataset.judgements[identifier]
    answer = max(sorted(judged), key=lambda document: judged[document])
    return Example(
        _short(dataset.queries[identifier]),
        dataset.languages.get(identifier, ""),
        scores,
        _short(dataset.documents[answer]),
    )


def _examples(dataset: Dataset, evaluations: Sequence[Evaluation]) -> list[tuple[str, list[Example]]]:
    won, lost = won_and_lost(dataset, evaluations)
    headings = ("Won", "Lost") if len(evaluations) == 2 else ("Answered first", "Not answered within ten")
    return list(zip(headings, (won, lost), strict=True))


def _languages(subjects: Sequence[Subject]) -> list[dict[str, Any]]:
    """Return the languages of each data set's queries with the values of each subject, where there are several."""
    tables = []
    for evaluations in zip(*(subject.evaluations for subject in subjects), strict=True):
        found = [evaluation.by_language for evaluation in evaluations]
        names = list(dict.fromkeys(name for one in found for name in one))
        if len(names) > 1:
            rows = [(name, [one.get(name) for one in found]) for name in names]
            tables.append({"dataset": evaluations[0].dataset, "rows": rows})
    return tables


def _intervals(subjects: Sequence[Subject], number: int) -> str:
    rows = []
    for metric in METRICS:
        values = [(s.name, s.evaluations[number].metrics[metric]) for s in subjects]
        rows.append((metric, [(name, v["mean"], v["low"], v["high"]) for name, v in values]))
    return intervals(rows, title=f"{subjects[0].evaluations[number].dataset}: means with 95% intervals")


def _differences(comparison: Comparison) -> str:
    before, after = comparison.baseline.per_query, comparison.candidate.per_query
    values = [after[q]["ndcg@10"] - before[q]["ndcg@10"] for q in sorted(before)]
    return histogram(
        values, x="difference in nDCG@10", y="queries", title=f"{comparison.candidate.dataset}: differences"
    )


def _recall(index: IndexState | None) -> str:
    if index is None or not index.calibration or len(index.calibration["recall"]) < 2:
        return ""
    points = [(float(effort), float(recall)) for effort, recall in index.calibration["recall"]]
    names = {"ivfflat": "probes", "hnsw": "ef_search", "binary": "candidates"}
    return lines(
        [Series(f"generation {index.id}", points)],
        x=names.get(index.index_method, "effort"),
        y=f"recall@{index.calibration['k']}",
        log_x=True,
        level=float(index.calibration["target"]),
    )


def _training(lineage: Lineage | None) -> list[str]:
    if lineage is None or lineage.curve is None:
        return []
    drawn = [
        lines([Series("loss", lineage.curve.losses, marked=False)], x="step", y="loss"),
        lines([Series("validation", lineage.curve.validations)], x="step", y="nDCG@10 on validation"),
    ]
    return [plot for plot in drawn if plot]


def _short(text: str) -> str:
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"
