"""`pgembed tune`: search for options of `pgembed train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgembed.cli.common import DsnOption, JsonOption, connection, print_json, show_progress
from pgembed.training.options import TrainingOptions

if TYPE_CHECKING:
    from pgembed.evaluation.dataset import Dataset

_DEFAULT = TrainingOptions()
# Long enough to tell good options from bad ones; what is chosen is then trained for as long as one likes.
_STEPS = 60
# So many that two trials' scores compare, and as many for every trial, whatever its batch.
_ROWS = 128


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("tune")(tune)


def tune(
    trials: Annotated[
        int, typer.Option("--trials", min=1, help="Of the study in all; earlier and other processes' count.")
    ] = 20,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", min=0.01, help="Begin no trial after so long; --trials holds as well."),
    ] = None,
    study: Annotated[str, typer.Option("--study", help="Name: the same again goes on with it.")] = "pgembed",
    base: Annotated[str, typer.Option("--base", metavar="NAME|FOLDER", help="What to start from.")] = "minilm",
    view: Annotated[str, typer.Option("--view", help="View of triplets in schema pgembed.")] = _DEFAULT.view,
    kind: Annotated[str, typer.Option("--kind", help="docstring, code, or all.")] = "docstring",
    language: Annotated[str | None, typer.Option("--language", help="Only triplets of this language.")] = None,
    steps: Annotated[int, typer.Option("--steps", min=4, help="Of each trial.")] = _STEPS,
    micro_batch: Annotated[
        int | None, typer.Option("--micro-batch", min=1, help="Triplets in memory at a time.")
    ] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=8, help="Texts are cut here.")] = _DEFAULT.max_tokens,
    precision: Annotated[str, typer.Option("--precision", help="auto, bf16 or fp32.")] = _DEFAULT.precision,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    evaluation_rows: Annotated[
        int, typer.Option("--evaluation-rows", min=8, help="Validation triplets that trials are compared on.")
    ] = _ROWS,
    dataset: Annotated[
        Path | None,
        typer.Option(
            "--dataset",
            metavar="DIR",
            help="A data set in BEIR's layout as a guard: what is lost there beyond doubt is taken off the score.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the triplets' order and of the search.")] = _DEFAULT.seed,
    dsn: DsnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search for the options of pgembed train that suit this code.

    Short trainings, compared by nDCG@10 on validation triplets: batch, learning rate, negatives (or the in-batch loss),
    margin and the share of code triplets. One training is measured at every share of interpolation. Trials below the
    median are given up on the way. The first trial has the defaults.

    The study is kept in the database (schema pgembed_tune). The same command goes on where one was killed; several at
    a time work at one study.

    \b
    Examples:
        pgembed tune --minutes 30
        pgembed tune --trials 40 --study long --steps 150
        pgembed tune --trials 40 --dataset cosqa --json
    """
    if kind not in ("docstring", "code", "all"):
        raise typer.BadParameter("--kind is one of docstring, code, all.")
    if precision not in ("auto", "bf16", "fp32"):
        raise typer.BadParameter("--precision is one of auto, bf16, fp32.")
    if device not in ("auto", "cpu", "cuda"):
        raise typer.BadParameter("--device is one of auto, cpu, cuda.")
    chosen: dict[str, Any] = {"precision": precision}
    options = TrainingOptions(
        view=view,
        kind=None if kind == "all" else kind,
        language=language,
        steps=steps,
        micro_batch=micro_batch,
        max_tokens=max_tokens,
        evaluation_rows=evaluation_rows,
        seed=seed,
        **chosen,
    )
    from pgembed.training import require_torch

    require_torch()
    from pgembed.cli.tuning_report import print_tuning, to_json
    from pgembed.training.distributed import joined
    from pgembed.training.study import require_optuna
    from pgembed.training.trial import Bench
    from pgembed.training.tune import SHARES, Budget, search

    require_optuna()
    progress = show_progress()
    with connection(dsn, access="session") as conn, joined(device) as among:
        bench = Bench(conn, options, base=base, shares=SHARES, guard=_guard(dataset), among=among, progress=progress)
        found = search(conn, bench, options, name=study, budget=Budget(trials, minutes), progress=progress)
    if as_json:
        print_json(to_json(found, base))
    else:
        print_tuning(found, base)


def _guard(folder: Path | None) -> "Dataset | None":
    if folder is None:
        return None
    from pgembed.evaluation.beir import read_beir

    return read_beir(folder)
