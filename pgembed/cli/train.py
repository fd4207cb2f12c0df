"""`pgembed train`: fine-tune on the triplet view."""

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from pgembed.cli.common import DsnOption, JsonOption, connection, print_json, show_progress
from pgembed.training.options import Distance, KeepBest, Loss, Negatives, Precision, Schedule, TrainingOptions

_DEFAULT = TrainingOptions()
_LOSS, _STEPS, _MEMORY, _MEASURE, _KEEP = (
    "Loss", "Steps and optimiser", "Speed and memory", "Validation and metrics", "Checkpoints",
)  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("train")(train)


def train(
    context: typer.Context,
    base: Annotated[
        str, typer.Option("--base", metavar="NAME|FOLDER", help="What to start from: a preset or a model's folder.")
    ] = "minilm",
    view: Annotated[str, typer.Option("--view", help="View of triplets in schema pgembed.")] = _DEFAULT.view,
    kind: Annotated[str, typer.Option("--kind", help="docstring, code, or all.")] = "docstring",
    language: Annotated[str | None, typer.Option("--language", help="Only triplets of this language.")] = None,
    code_share: Annotated[
        float | None,
        typer.Option(
            "--code-share",
            min=0.0,
            max=0.9,
            help="Part of every batch that is code triplets, beside docstrings. Default: 0.25, where there are any.",
        ),
    ] = _DEFAULT.code_share,
    seed: Annotated[int, typer.Option("--seed", help="Where in the view's order the run begins.")] = _DEFAULT.seed,
    interpolate: Annotated[
        float,
        typer.Option("--interpolate", min=0.01, max=1.0, help="Share of the trained weights; the rest is the base."),
    ] = _DEFAULT.interpolate,
    loss: Annotated[str, typer.Option("--loss", help="triplet or in-batch.", rich_help_panel=_LOSS)] = _DEFAULT.loss,
    margin: Annotated[
        float, typer.Option("--margin", help="Of the triplet loss.", rich_help_panel=_LOSS)
    ] = _DEFAULT.margin,
    distance: Annotated[
        str, typer.Option("--distance", help="cosine or euclidean, of the triplet loss.", rich_help_panel=_LOSS)
    ] = _DEFAULT.distance,
    negatives: Annotated[
        str,
        typer.Option(
            "--negatives",
            help="Triplet loss against the mined one alone (mined), or, of it and the batch's bodies, the hardest, "
            "or the hardest that is further away than the positive (semi-hard).",
            rich_help_panel=_LOSS,
        ),
    ] = _DEFAULT.negatives,
    matryoshka: Annotated[
        str,
        typer.Option(
            "--matryoshka",
            metavar="N,N,…",
            help="Widths that vectors shall be good at when cut to them, besides the whole.",
            rich_help_panel=_LOSS,
        ),
    ] = "",
    steps: Annotated[int, typer.Option("--steps", min=1, rich_help_panel=_STEPS)] = _DEFAULT.steps,
    batch: Annotated[
        int, typer.Option("--batch", min=1, help="Triplets a step.", rich_help_panel=_STEPS)
    ] = _DEFAULT.batch,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", help="At its peak, after the warm-up.", rich_help_panel=_STEPS)
    ] = _DEFAULT.learning_rate,
    schedule: Annotated[
        str,
        typer.Option("--schedule", help="After the warm-up: linear, cosine or constant.", rich_help_panel=_STEPS),
    ] = _DEFAULT.schedule,
    weight_decay: Annotated[
        float,
        typer.Option("--weight-decay", min=0.0, help="Decoupled, as in AdamW; not of biases.", rich_help_panel=_STEPS),
    ] = _DEFAULT.weight_decay,
    clip_norm: Annotated[
        float,
        typer.Option("--clip-norm", help="Gradients are scaled to this norm, all together.", rich_help_panel=_STEPS),
    ] = _DEFAULT.clip_norm,
    max_tokens: Annotated[
        int,
        typer.Option("--max-tokens", min=8, help="Texts are cut here, in training only.", rich_help_panel=_MEMORY),
    ] = _DEFAULT.max_tokens,
    precision: Annotated[
        str,
        typer.Option(
            "--precision", help="auto, bf16 or fp32. auto: bf16 where the processor has it.", rich_help_panel=_MEMORY
        ),
    ] = _DEFAULT.precision,
    micro_batch: Annotated[
        int | None,
        typer.Option(
            "--micro-batch",
            min=1,
            help="Triplets in memory at a time: large batches, the same gradient.",
            rich_help_panel=_MEMORY,
        ),
    ] = None,
    gradient_checkpointing: Annotated[
        bool,
        typer.Option(
            "--gradient-checkpointing", help="Compute layers again instead of keeping them.", rich_help_panel=_MEMORY
        ),
    ] = False,
    device: Annotated[
        str,
        typer.Option("--device", help="auto, cpu or cuda. auto: a GPU where torch sees one.", rich_help_panel=_MEMORY),
    ] = "auto",
    shard: Annotated[
        bool,
        typer.Option(
            "--shard", help="Divide the weights among the processes of torchrun (FSDP2).", rich_help_panel=_MEMORY
        ),
    ] = False,
    lora_rank: Annotated[
        int,
        typer.Option(
            "--lora-rank",
            min=0,
            help="Train low-rank adapters, merged at the end; 0: all weights.",
            rich_help_panel=_MEMORY,
        ),
    ] = _DEFAULT.lora_rank,
    evaluate_every: Annotated[
        int | None,
        typer.Option(
            "--evaluate-every",
            min=0,
            help="Steps between validations; 0: none. Default: before, halfway, after.",
            rich_help_panel=_MEASURE,
        ),
    ] = None,
    evaluation_rows: Annotated[
        int | None,
        typer.Option(
            "--evaluation-rows",
            min=1,
            help="Validation triplets. Default: what takes about a twentieth of the time.",
            rich_help_panel=_MEASURE,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience",
            min=1,
            help="Stop after so many validations without a better one, with the best weights.",
            rich_help_panel=_MEASURE,
        ),
    ] = None,
    keep_best: Annotated[
        str | None,
        typer.Option(
            "--keep-best",
            metavar="score|loss",
            help="Take the best validation's weights, not the last step's.",
            rich_help_panel=_MEASURE,
        ),
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option("--tensorboard", metavar="DIR", help="Write events there as well.", rich_help_panel=_MEASURE),
    ] = None,
    gradcheck: Annotated[
        bool,
        typer.Option(
            "--gradcheck",
            help="Do not train: compare gradients with finite differences; 1 if they differ.",
            rich_help_panel=_MEASURE,
        ),
    ] = False,
    checkpoint_every: Annotated[
        int, typer.Option("--checkpoint-every", min=1, help="Steps between two checkpoints.", rich_help_panel=_KEEP)
    ] = _DEFAULT.checkpoint_every,
    keep_last: Annotated[
        int, typer.Option("--keep-last", min=1, help="Checkpoints that stay while it runs.", rich_help_panel=_KEEP)
    ] = _DEFAULT.keep_last,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh/--resume",
            help="Start anew, or go on with an interrupted run of the same options.",
            rich_help_panel=_KEEP,
        ),
    ] = False,
    dsn: DsnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune an encoder on the triplets of this database.

    The same command again goes on with an interrupted run, and does a finished one not again. Every step is in
    pgembed.training_metrics, every validation in pgembed.training_evaluations, the run in pgembed.training_lineage.

    Several processes, one for each GPU, share the texts of every step and come to what one would: --batch is that of
    all together. The first alone has the database and the disk.

    \b
    Examples:
        pgembed train
        pgembed train --steps 300 --batch 256 --micro-batch 16
        pgembed train --loss triplet --negatives semi-hard --margin 0.3 --fresh
        pgembed train --steps 1000 --evaluate-every 100 --patience 3 --tensorboard runs
        pgembed train --gradcheck --matryoshka 128,256
        torchrun --nproc-per-node 2 -m pgembed train --batch 256
    """
    _choices(
        {
            "--kind": (kind, ("docstring", "code", "all")),
            "--loss": (loss, get_args(Loss)),
            "--distance": (distance, get_args(Distance)),
            "--negatives": (negatives, get_args(Negatives)),
            "--schedule": (schedule, get_args(Schedule)),
            "--precision": (precision, get_args(Precision)),
            "--keep-best": (keep_best or "score", get_args(KeepBest)),
            "--device": (device, ("auto", "cpu", "cuda")),
        }
    )
    _refuse_what_the_loss_ignores(context, loss, ("margin", "distance", "negatives"))
    chosen: dict[str, Any] = {
        "loss": loss, "distance": distance, "negatives": negatives, "schedule": schedule, "precision": precision,
        "keep_best": keep_best,
    }  # fmt: skip
    options = TrainingOptions(
        view=view,
        kind=None if kind == "all" else kind,
        language=language,
        code_share=code_share,
        steps=steps,
        batch=batch,
        micro_batch=micro_batch,
        margin=margin,
        matryoshka=_widths(matryoshka),
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        interpolate=interpolate,
        lora_rank=lora_rank,
        max_tokens=max_tokens,
        gradient_checkpointing=gradient_checkpointing,
        seed=seed,
        evaluate_every=evaluate_every,
        evaluation_rows=evaluation_rows,
        patience=patience,
        checkpoint_every=checkpoint_every,
        keep_last=keep_last,
        **chosen,
    )
    from pgembed.training import require_torch

    require_torch()
    if gradcheck:
        _check_gradients(dsn, options, base, as_json=as_json)
        return
    from pgembed.cli.training_report import print_result
    from pgembed.training.distributed import joined
    from pgembed.training.loop import follow
    from pgembed.training.loop import train as run

    with joined(device, shards=shard) as among:
        if not among.is_first:
            follow(options, base=base, among=among)
            return
        with connection(dsn, access="session") as conn:
            result = run(
                conn, options, base=base, fresh=fresh, tensorboard=tensorboard, progress=show_progress(), among=among
            )
    if as_json:
        print_json(vars(result))
    else:
        print_result(result)


def _check_gradients(dsn: str | None, options: TrainingOptions, base: str, *, as_json: bool) -> None:
    from pgembed.cli.training_report import gradients_to_json, print_gradients
    from pgembed.training.gradcheck import check_gradients

    with connection(dsn) as conn:
        report = check_gradients(conn, options, base=base, progress=show_progress())
    if as_json:
        print_json(gradients_to_json(report))
    else:
        print_gradients(report)
    if not report.passed:
        raise typer.Exit(1)


def _widths(given: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in given.split(",") if width.strip())
    except ValueError:
        raise typer.BadParameter(f"--matryoshka takes widths, such as 128,256, and not {given!r}.") from None


def _refuse_what_the_loss_ignores(context: typer.Context, loss: str, of_triplets: tuple[str, ...]) -> None:
    sources = {name: context.get_parameter_source(name) for name in of_triplets}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if given and loss != "triplet":
        raise typer.BadParameter(f"--{given[0]} is of the triplet loss: add --loss triplet.")


def _choices(options: dict[str, tuple[str, tuple[str, ...]]]) -> None:
    for option, (value, known) in options.items():
        if value not in known:
            raise typer.BadParameter(f"{option} is one of {', '.join(known)}, not {value!r}.")
