"""What `pgembed eval` prints: metrics, comparisons, languages, the index, and what the gate says."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from pgembed.cli.common import console, printable

if TYPE_CHECKING:
    from pgembed.evaluation.store import Comparison, Evaluation

# The metric that the gate goes by: it looks at the whole first page and at the order on it.
GATE_METRIC = "ndcg@10"


def _heading(evaluation: "Evaluation") -> str:
    return f"{evaluation.dataset}\n{evaluation.queries:,} queries, {evaluation.documents:,} documents"


def show(evaluations: "list[Evaluation]", name: str) -> None:
    from pgembed.evaluation.metrics import METRICS

    shown = Table("metric", *(printable(_heading(evaluation)) for evaluation in evaluations), box=None)
    for metric in METRICS:
        values = (evaluation.metrics[metric] for evaluation in evaluations)
        shown.add_row(metric, *(f"{v['mean']:.3f} \\[{v['low']:.3f}, {v['high']:.3f}]" for v in values))
    console.print(printable(name), markup=False)
    console.print(shown)
    console.print("In brackets: 95% bootstrap intervals over the queries.")
    show_languages([(name, evaluations)])


def show_comparison(comparison: "Comparison", baseline: str, candidate: str) -> None:
    shown = Table("metric", printable(baseline), printable(candidate), "difference", "p", box=None)
    for metric, test in comparison.tests.items():
        shown.add_row(
            metric,
            f"{comparison.baseline.mean(metric):.3f}",
            f"{comparison.candidate.mean(metric):.3f}",
            f"{test.difference:+.3f} \\[{test.low:+.3f}, {test.high:+.3f}]",
            f"{test.p:.4f}",
        )
    console.print(printable(_heading(comparison.candidate)), markup=False)
    console.print(shown)
    console.print("In brackets: 95% intervals of the paired bootstrap over the queries.")


def show_languages(subjects: "Sequence[tuple[str, Sequence[Evaluation]]]") -> None:
    """Print nDCG@10 by language for each data set whose queries are of several."""
    for evaluations in zip(*(found for _, found in subjects), strict=True):
        spoken = [evaluation.by_language for evaluation in evaluations]
        names = list(dict.fromkeys(name for one in spoken for name in one))
        if len(names) < 2:
            continue
        columns = [name for name, _ in subjects] if len(subjects) > 1 else ["ndcg@10"]
        shown = Table("language", "queries", *(printable(column) for column in columns), box=None)
        for name in names:
            known = [one.get(name) for one in spoken]
            count = next(int(values["queries"]) for values in known if values)
            shown.add_row(printable(name), f"{count:,}", *(_interval(values) for values in known))
        console.print(printable(f"{evaluations[0].dataset}, ndcg@10 by language"), markup=False)
        console.print(shown)


def show_index(name: str, generation_id: int, evaluations: "Sequence[Evaluation]") -> None:
    """Print what searches through a generation's index find and take."""
    for evaluation in evaluations:
        if measured := evaluation.of_index(generation_id):
            said = (
                f"Index of {name}, {evaluation.dataset}: recall@{measured['k']:.0f} {measured['recall']:.3f} against "
                f"exact search, {measured['p50_ms']:.1f} ms median, {measured['p95_ms']:.1f} ms p95 "
                f"({measured['queries']:,.0f} queries, {measured['rows']:,.0f} vectors, effort "
                f"{measured['effort']:.0f}, warm cache, without embedding the text)."
            )
            console.print(printable(said), markup=False)


def verdict(comparisons: "Sequence[Comparison]", baseline: str, candidate: str) -> str:
    """Return what the gate decides, of whom, and by which figures."""
    if not comparisons:
        return f"Passed: no generation is active, so there is nothing that {candidate} could be worse than."
    worse = [comparison for comparison in comparisons if comparison.tests[GATE_METRIC].worse]
    figures = "; ".join(
        f"{c.candidate.dataset} {t.difference:+.3f} [{t.low:+.3f}, {t.high:+.3f}]"
        for c in worse or comparisons
        for t in (c.tests[GATE_METRIC],)
    )
    said = "worse" if worse else "not worse"
    return (
        f"{'Failed' if worse else 'Passed'}: {candidate} is {said} than {baseline}, the active generation, in "
        f"{GATE_METRIC}, beyond its 95% interval: {figures}."
    )


def _interval(values: dict[str, float] | None) -> str:
    return "" if values is None else f"{values['mean']:.3f} \\[{values['low']:.3f}, {values['high']:.3f}]"
