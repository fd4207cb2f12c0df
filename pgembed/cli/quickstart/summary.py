"""What the quickstart tells at its end: the hits, base against fine-tuned, and what each step took."""

from dataclasses import asdict
from typing import Any

from rich.table import Table

from pgembed.cli.common import console, printable, program, seconds
from pgembed.cli.quickstart.steps import Outcome
from pgembed.cli.search import show_hit
from pgembed.cli.serve import DEFAULT_PORT
from pgembed.evaluation.store import Comparison

_METRICS = ("ndcg@10", "mrr@10", "recall@10")


def show_summary(outcome: Outcome) -> None:
    """Print all of it, in the order in which a person wants to know."""
    for text, hits in outcome.searches:
        console.rule(f'pgembed search "{printable(text)}"', align="left", style="dim")
        for hit in hits:
            show_hit(hit, text, lines=5)
    console.rule("what each step took", align="left")
    console.print(_steps(outcome))
    console.rule("base against fine-tuned", align="left")
    for comparison in outcome.comparisons:
        console.print(_comparison(comparison))
    if outcome.comparisons:
        console.print("In brackets: 95% bootstrap intervals over the queries; the difference is tested pair by pair.")
    console.print(f"\n{outcome.verdict}", markup=False)
    _tell_generation(outcome)
    console.print(f"This run took {seconds(outcome.seconds)}.")
    _tell_next(outcome)


def to_json(outcome: Outcome) -> dict[str, Any]:
    """Return the same as plain values."""
    generation = outcome.generation
    return {
        "source": outcome.source,
        "plan": asdict(outcome.plan),
        "seconds": outcome.seconds,
        "steps": {name: asdict(step) for name, step in outcome.steps.items()},
        "chunks": outcome.chunks,
        "triplets": outcome.triplets,
        "comparisons": [comparison.to_json() for comparison in outcome.comparisons],
        "verdict": outcome.verdict,
        "generation": None if generation is None else {**asdict(generation), "metrics": generation.metrics},
        "searches": [{"query": text, "hits": [asdict(hit) for hit in hits]} for text, hits in outcome.searches],
    }


def _steps(outcome: Outcome) -> Table:
    table = Table("step", box=None, pad_edge=False)
    for heading in ("amount", "time", "rate"):
        table.add_column(heading, justify="right")
    for name, step in outcome.steps.items():
        if not step.finished:
            continue
        table.add_row(
            name,
            f"{step.amount:,} {step.unit}" if step.amount else "",
            seconds(step.seconds) + (" (an earlier run)" if step.skipped else ""),
            f"{step.rate:,.0f}/s" if step.rate else "",
        )
    return table


def _comparison(comparison: Comparison) -> Table:
    base, tuned = comparison.baseline, comparison.candidate
    table = Table(
        "metric", "base", "fine-tuned", "difference", box=None, pad_edge=False, title_justify="left",
        title=printable(f"{base.dataset}: {base.queries:,} queries, {base.documents:,} documents"),
    )  # fmt: skip
    for metric in _METRICS:
        values = [evaluation.metrics[metric] for evaluation in (base, tuned)]
        test = comparison.tests[metric]
        table.add_row(
            metric,
            *(f"{v['mean']:.3f} \\[{v['low']:.3f}, {v['high']:.3f}]" for v in values),
            f"{test.difference:+.3f} \\[{test.low:+.3f}, {test.high:+.3f}]",
        )
    return table


def _tell_generation(outcome: Outcome) -> None:
    found = outcome.generation
    if found is None:
        return
    recall = "" if found.index_recall is None else f", recall@10 {found.index_recall:.3f} against exact search"
    probes = (
        f"{found.probes} of {found.lists} lists probed" if found.index_method == "ivfflat" else f"effort {found.probes}"
    )
    console.print(f"Index: {found.index_method} over {found.row_count or 0:,} vectors, {probes}{recall}.", markup=False)


def _tell_next(outcome: Outcome) -> None:
    console.print("\nNext:", markup=False)
    option = "" if outcome.is_embedded else ' --dsn "…"'
    for command, what in (
        (f'search "what you look for"{option}', "search"),
        (f"eval --mask-names{option}", "measure again, with the functions' names masked beside it"),
        (f"triplets{option}", "look at what it was trained on"),
        (f"db psql{option}", "the same in SQL: SELECT * FROM pgembed.triplets LIMIT 5;"),
        *([("db stop", "stop the server")] if outcome.is_embedded else []),
    ):
        console.print(f"  {program()} {command:<36} {what}", markup=False)
    console.print(
        f"\nAll of it as a page: run `{program()} serve{option}` and open http://127.0.0.1:{DEFAULT_PORT}/",
        markup=False,
    )
