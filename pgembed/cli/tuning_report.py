"""What `pgembed tune` prints: the trials, what mattered, and the command that trains with the best options."""

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from pgembed.cli.common import console, printable, seconds

if TYPE_CHECKING:
    from pgembed.training.options import TrainingOptions
    from pgembed.training.tune import Tried, TuningResult

_STATES = {"complete": "", "pruned": "given up", "fail": "failed", "running": "at work", "waiting": "to be tried"}


def print_tuning(found: "TuningResult", base: str) -> None:
    """Print the table of trials, importance, shares, and the best options as a command."""
    console.print(_table(found.trials))
    if found.importance:
        told = ", ".join(f"{name} {share:.0%}" for name, share in found.importance.items())
        console.print(f"What mattered (PED-ANOVA, share of the variance): {told}")
    else:
        console.print("What mattered can be told after ten complete trials of different scores.")
    if found.shares:
        told = ", ".join(f"{share} {score:.3f}" for share, score in found.shares.items())
        console.print(f"Mean score by interpolate: {told}")
    if found.best is None or found.options is None or found.best.measured is None:
        console.print("No trial is complete yet.")
        return
    best = found.best.measured
    guard = "" if best.guard is None or found.base.guard is None else (
        f"; on the guarding data set {best.guard:.3f} against {found.base.guard:.3f}"
    )  # fmt: skip
    console.print(
        f"Best: trial {found.best.number}, nDCG@10 {best.ndcg:.3f} against the base's {found.base.ndcg:.3f}{guard}"
    )
    if best.score <= found.base.score:
        console.print("No trial was better than the base: do not train with these options.")
    console.print("The best of many on the same queries flatters itself: see to it with pgembed eval.")
    console.print(printable(f"Next: {command(found.options, base)}"), markup=False)


def command(options: "TrainingOptions", base: str) -> str:
    """Return the `pgembed train` that trains with these options."""
    given = {
        "base": base,
        "view": options.view,
        "kind": options.kind or "all",
        "language": options.language,
        "seed": options.seed,
        "steps": options.steps,
        "batch": options.batch,
        "micro-batch": options.micro_batch,
        "max-tokens": options.max_tokens,
        "precision": options.precision,
        "learning-rate": options.learning_rate,
        "loss": options.loss,
        "margin": options.margin if options.loss == "triplet" else None,
        "negatives": options.negatives if options.loss == "triplet" else None,
        "code-share": options.code_share,
        "interpolate": options.interpolate,
    }
    told = [part for name, value in given.items() if value is not None for part in (f"--{name}", str(value))]
    return shlex.join(["pgembed", "train", *told])


def to_json(found: "TuningResult", base: str) -> dict[str, Any]:
    """Return plain values."""
    return {
        **asdict(found),
        "options": None if found.options is None else found.options.hyperparameters(),
        "command": None if found.options is None else command(found.options, base),
    }


def _table(trials: "list[Tried]") -> Table:
    names = ["batch", "negatives", "learning_rate", "margin", "code_share"]
    heads = ["trial", "score", *(name.replace("_", " ") for name in names), "interpolate", "guard", "time", ""]
    table = Table(*heads, box=None, pad_edge=False)
    for one in sorted(trials, key=lambda one: (one.state != "complete", -(one.score or 0.0), one.number)):
        best = one.measured
        table.add_row(
            str(one.number),
            "" if one.score is None else f"{one.score:.4f}",
            *(_cell(one.options.get(name)) for name in names),
            "" if best is None else str(best.share),
            "" if best is None or best.guard is None else f"{best.guard:.3f}",
            "" if one.seconds is None else seconds(one.seconds),
            _STATES.get(one.state, one.state),
        )
    return table


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.2g}" if isinstance(value, float) else str(value)
