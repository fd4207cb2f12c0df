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
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Hold all rows and files to what must be so at any time; reads every vector."),
    ] = False,
    dsn: DsnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the server, the schema, the engines and the active generation. Exit code 1 when something is wrong.

    What a person should know of, and nothing fails for, is marked ! (--json: "warning") and leaves the exit code at 0.

    --fix analyses tables, drops tables of vectors that belong to no generation or to a failed one, and removes pairs
    of chunks that are gone. It never embeds, never changes which model answers, and stays in schema pgembed.

    --strict verifies besides that every chunk is what its hash says and stands somewhere, that pairs, splits, triplets
    and the search by words follow from the chunks, that every finished generation has one vector of length 1 for each
    chunk and a usable index, that checkpoints and models have their hashes, and that nothing was left in the middle.
    It reads all of the database (half a minute for 100,000 chunks, and then each vector); what is dear is computed
    again for a sample.

    \b
    Examples:
        pgembed doctor
        pgembed doctor --fix
        pgembed doctor --strict
        pgembed doctor --dsn postgresql://me@db.example.com/app --json
    """
    from pgembed.cli.checks import check_all

    problems, fixed = check_all(dsn, fix=fix, strict=strict)
    failing = [problem for problem in problems if not problem.warning]
    if as_json:
        print_json(
            {
                "problems": [
                    {"what": p.what, "remedy": p.remedy, "fixable": p.fix is not None, "warning": p.warning}
                    for p in problems
                ],
                "fixed": [p.what for p in fixed],
            }
        )
    else:
        for problem in fixed:
            console.print(printable(f"✓ {problem.what}\n  done: {problem.remedy}"), markup=False)
        for problem in problems:
            mark = "!" if problem.warning else "✗"
            console.print(printable(f"{mark} {problem.what}\n  {problem.remedy}"), markup=False)
        if not fix and any(problem.fix for problem in problems):
            console.print("Some of this can be done for you: pgembed doctor --fix")
        if not failing:
            console.print("Nothing is wrong." if not (fixed or problems) else "Nothing else is wrong.")
    if failing:
        raise typer.Exit(1)
