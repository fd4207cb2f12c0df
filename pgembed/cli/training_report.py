"""What `pgembed train` prints: a run's result, and the comparison of gradients."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Column, Table

from pgembed.cli.common import console, printable, seconds

if TYPE_CHECKING:
    from pgembed.training.gradcheck import GradientReport
    from pgembed.training.runs import TrainingResult

_METRICS = {"ndcg@10": "nDCG@10", "mrr@10": "MRR@10"}


def print_result(result: "TrainingResult") -> None:
    """Print what a run came to: losses, alarms, base against tuned, and whether that is better."""
    done = "was done already" if result.already_done else f"took {seconds(result.seconds)}"
    console.print(
        f"Run {result.run_id} {done}: {result.steps} steps, {result.triplets:,} triplets of {result.available:,}, "
        f"{result.precision}"
    )
    if result.first_loss is not None and result.last_loss is not None:
        console.print(f"  loss {result.first_loss:.4f} in the first ten steps, {result.last_loss:.4f} in the last ten")
    if result.skipped_steps:
        console.print(f"  {result.skipped_steps} steps were skipped: the loss or a gradient was not finite")
    if result.best_step is not None:
        console.print(f"  the weights are those of the best validation, after step {result.best_step}")
    for alarm in result.alarms:
        console.print(
            f"  alarm: {alarm['name']}, from step {alarm['first_step']} on, at {alarm['steps']} steps: {alarm['says']}"
        )
    if result.validation is not None:
        console.print(_table(result.validation))
    console.print(verdict(result.validation))
    console.print(printable(f"  {result.checkpoint}"), markup=False)
    if result.validation is None or not result.validation["worse"]:
        console.print("Next: pgembed export")


def verdict(validation: dict[str, Any] | None) -> str:
    """Return in a sentence whether the result is better than its base, so far as was measured."""
    if validation is None:
        return "Whether it is better than the base is not known: it was not validated. Before use: pgembed eval"
    test, queries = validation["tests"]["ndcg@10"], validation["queries"]
    difference = f"nDCG@10 {test['difference']:+.3f}, 95% interval [{test['low']:+.3f}, {test['high']:+.3f}]"
    if validation["better"]:
        return f"It is better than the base on {queries:,} validation queries: {difference}."
    if validation["worse"]:
        return f"It is WORSE than the base on {queries:,} validation queries: {difference}. Do not use it."
    return f"It is not shown to be better than the base: {difference} on {queries:,} validation queries."


def print_gradients(report: "GradientReport") -> None:
    """Print each derivative that was compared, and the largest relative error."""
    # a name that is cut says nothing
    name = Column("parameter", overflow="fold", ratio=1)
    table = Table(name, "entry", "autograd", "difference", "error", box=None, pad_edge=False)
    for one in report.compared:
        entry = "a direction" if one.index is None else str(one.index)
        table.add_row(one.parameter, entry, f"{one.autograd:+.6e}", f"{one.numeric:+.6e}", f"{one.relative_error:.1e}")
    console.print(table)
    largest = report.largest
    console.print(
        f"{'Equal' if report.passed else 'NOT equal'}: largest relative error {largest.relative_error:.1e} "
        f"({largest.parameter}), and it must be below {report.tolerance:.0e}; loss {report.loss:.4f} "
        f"of the triplets {', '.join(map(str, report.ordinals))}, in float64"
    )


def gradients_to_json(report: "GradientReport") -> dict[str, Any]:
    """Return plain values."""
    return {
        **asdict(report),
        "largest_relative_error": report.largest.relative_error,
        "passed": report.passed,
    }


def _table(validation: dict[str, Any]) -> Table:
    table = Table(
        f"{validation['queries']:,} queries",
        "base",
        "tuned",
        "difference",
        "95% interval",
        "p",
        box=None,
        pad_edge=False,
    )
    for name, title in _METRICS.items():
        test = validation["tests"][name]
        table.add_row(
            title,
            f"{validation['base'][name]:.3f}",
            f"{validation['tuned'][name]:.3f}",
            f"{test['difference']:+.3f}",
            f"[{test['low']:+.3f}, {test['high']:+.3f}]".replace("[", r"\["),
            f"{test['p']:.3f}",
        )
    losses = [validation[model]["loss"] for model in ("base", "tuned")]
    shown = ["not finite" if loss is None else f"{loss:.4f}" for loss in losses]
    change = "" if None in losses else f"{losses[1] - losses[0]:+.4f}"
    table.add_row("loss", *shown, change, "", "")
    return table
