"""`pgembed train`: fine-tune on the triplet view."""

from typing import Annotated, Any

import typer

from pgembed.cli.common import DsnOption, JsonOption, connection, console, print_json, printable, seconds, show_progress
from pgembed.training.options import TrainingOptions

_DEFAULT = TrainingOptions()


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("train")(train)


def train(
    base: Annotated[
        str, typer.Option("--base", metavar="NAME|FOLDER", help="What to start from: a preset or a model's folder.")
    ] = "minilm",
    view: Annotated[str, typer.Option("--view", help="View of triplets in schema pgembed.")] = _DEFAULT.view,
    kind: Annotated[str, typer.Option("--kind", help="docstring, code, or all.")] = "docstring",
    language: Annotated[str | None, typer.Option("--language", help="Only triplets of this language.")] = None,
    steps: Annotated[int, typer.Option("--steps", min=1)] = _DEFAULT.steps,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Triplets a step.")] = _DEFAULT.batch,
    loss: Annotated[str, typer.Option("--loss", help="triplet or in-batch.")] = _DEFAULT.loss,
    margin: Annotated[float, typer.Option("--margin", help="Of the triplet loss.")] = _DEFAULT.margin,
    distance: Annotated[str, typer.Option("--distance", help="cosine or euclidean.")] = _DEFAULT.distance,
    hardest: Annotated[
        bool,
        typer.Option(
            "--hardest-in-batch/--mined-only",
            help="Triplet loss against the hardest negative in the batch, or against the mined one alone.",
        ),
    ] = _DEFAULT.hardest_in_batch,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", help="At its peak, after the warm-up.")
    ] = _DEFAULT.learning_rate,
    interpolate: Annotated[
        float,
        typer.Option("--interpolate", min=0.01, max=1.0, help="Share of the trained weights; the rest is the base."),
    ] = _DEFAULT.interpolate,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=8, help="Texts are cut here, in training only.")
    ] = _DEFAULT.max_tokens,
    precision: Annotated[
        str, typer.Option("--precision", help="auto, bf16 or fp32. auto: bf16 where the processor has it.")
    ] = _DEFAULT.precision,
    seed: Annotated[int, typer.Option("--seed", help="Where in the view's order the run begins.")] = _DEFAULT.seed,
    checkpoint_every: Annotated[
        int, typer.Option("--checkpoint-every", min=1, help="Steps between two checkpoints.")
    ] = _DEFAULT.checkpoint_every,
    fresh: Annotated[
        bool,
        typer.Option("--fresh/--resume", help="Start anew, or go on with an interrupted run of the same options."),
    ] = False,
    dsn: DsnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune an encoder on the triplets of this database.

    The same command again goes on with an interrupted run, and does a finished one not again. Loss, gradient norm,
    learning rate and rate of every step are in pgembed.training_metrics.

    \b
    Examples:
        pgembed train
        pgembed train --steps 300 --batch 32 --loss in-batch
        pgembed train --kind all --margin 0.3 --fresh
    """
    _choices(
        {
            "--kind": (kind, ("docstring", "code", "all")),
            "--loss": (loss, ("triplet", "in-batch")),
            "--distance": (distance, ("cosine", "euclidean")),
            "--precision": (precision, ("auto", "bf16", "fp32")),
        }
    )
    chosen: dict[str, Any] = {"loss": loss, "distance": distance, "precision": precision}
    options = TrainingOptions(
        view=view,
        kind=None if kind == "all" else kind,
        language=language,
        steps=steps,
        batch=batch,
        margin=margin,
        hardest_in_batch=hardest,
        learning_rate=learning_rate,
        interpolate=interpolate,
        max_tokens=max_tokens,
        seed=seed,
        checkpoint_every=checkpoint_every,
        **chosen,
    )
    from pgembed.training import require_torch

    require_torch()
    from pgembed.training.loop import train as run

    with connection(dsn) as conn:
        result = run(conn, options, base=base, fresh=fresh, progress=show_progress())
    if as_json:
        print_json(vars(result))
        return
    done = "was done already" if result.already_done else f"took {seconds(result.seconds)}"
    console.print(
        f"Run {result.run_id} {done}: {result.steps} steps, {result.triplets:,} triplets of {result.available:,}, "
        f"{result.precision}"
    )
    if result.first_loss is not None and result.last_loss is not None:
        console.print(f"  loss {result.first_loss:.4f} in the first ten steps, {result.last_loss:.4f} in the last ten")
    if result.skipped_steps:
        console.print(f"  {result.skipped_steps} steps were skipped: the loss or a gradient was not finite")
    console.print(printable(f"  {result.checkpoint}"), markup=False)
    console.print("Next: pgembed export")


def _choices(options: dict[str, tuple[str, tuple[str, ...]]]) -> None:
    for option, (value, known) in options.items():
        if value not in known:
            raise typer.BadParameter(f"{option} is one of {', '.join(known)}.")
