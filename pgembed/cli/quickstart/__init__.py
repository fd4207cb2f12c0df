"""`pgembed quickstart`: all of the path in one command, from files to a search that was measured, on real code.

plan.py     how much is done, and how long that will take here
steps.py    the path, step by step; each asks the database what is done already
ledger.py   how long each step took, kept for the last table
summary.py  what is told at the end
"""

from pathlib import Path
from typing import Annotated

import typer

from pgembed.cli.common import JsonOption, print_json
from pgembed.errors import MissingExtra


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("quickstart")(quickstart)


def quickstart(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="PATH",
            exists=True,
            file_okay=False,
            help="A folder of code. Default: this Python's standard library, without tests.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Less code, fewer steps, fewer queries: about a third of the time.")
    ] = False,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="All the code, more steps, more queries: about three times as long.")
    ] = False,
    base: Annotated[
        str, typer.Option("--base", metavar="NAME|FOLDER", help="Model to start from: a preset or a model's folder.")
    ] = "minilm",
    dataset: Annotated[
        list[Path] | None,
        typer.Option(
            "--dataset",
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Measure on this data set in BEIR's layout as well; repeatable.",
        ),
    ] = None,
    dsn: Annotated[
        str | None,
        typer.Option(
            "--dsn", metavar="DSN", help="Another database. Default: the embedded server, even if PGEMBED_DSN is set."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Do all of it once: ingest, pairs, triplets, measure, fine-tune, export, reindex, index, measure again, search.

    Run a second time it skips what is done. Interrupted at any point and run again, it goes on. It needs no network, no
    GPU and no Postgres of yours.

    \b
    Examples:
        pgembed quickstart
        pgembed quickstart --quick
        pgembed quickstart ~/src/shop --thorough
    """  # fmt: skip
    if quick and thorough:
        raise typer.BadParameter("--quick and --thorough exclude each other.")
    from pgembed.training import require_torch

    try:
        require_torch()
    except MissingExtra as error:  # one extra has all that it needs
        raise MissingExtra("quickstart", "The quickstart", error.cause) from error
    from pgembed.cli.quickstart.plan import PLANS
    from pgembed.cli.quickstart.steps import Quickstart
    from pgembed.cli.quickstart.summary import show_summary, to_json

    plan = PLANS["quick" if quick else "thorough" if thorough else "default"]
    outcome = Quickstart(path, plan, base=base, dsn=dsn, datasets=dataset or (), quiet=as_json).run()
    if as_json:
        print_json(to_json(outcome))
    else:
        show_summary(outcome)
