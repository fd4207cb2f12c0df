"""`pgembed doctor`: what commonly goes wrong, each with its remedy."""

from typing import Annotated

import typer

from pgembed.cli.common import DsnOption, JsonOption, console, print_json, printable


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("doctor")(doctor)


def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Do what the remedies say where that is safe, and tell what is left.")
    ] = False,
    dsn: DsnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the server, the schema, the engines and the active generation. Exit code 1 when something is wrong.

    --fix analyses tables, drops tables of vectors that belong to no generation or to a failed one, and removes pairs
    of chunks that are gone. It never embeds, never changes which model answers, and stays in schema pgembed.

    \b
    Examples:
        pgembed doctor
        pgembed doctor --fix
        pgembed doctor --dsn postgresql://me@db.example.com/app --json
    """
    from pgembed.cli.checks import check_all

    problems, fixed = check_all(dsn, fix=fix)
    if as_json:
        print_json(
            {
                "problems": [{"what": p.what, "remedy": p.remedy, "fixable": p.fix is not None} for p in problems],
                "fixed": [p.what for p in fixed],
            }
        )
    else:
        for problem in fixed:
            console.print(printable(f"✓ {problem.what}\n  done: {problem.remedy}"), markup=False)
        for problem in problems:
            console.print(printable(f"✗ {problem.what}\n  {problem.remedy}"), markup=False)
        if not fix and any(problem.fix for problem in problems):
            console.print("Some of this can be done for you: pgembed doctor --fix")
        if not problems:
            console.print("Nothing is wrong." if not fixed else "Nothing else is wrong.")
    if problems:
        raise typer.Exit(1)
