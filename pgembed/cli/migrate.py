"""`pgembed migrate`: the schema."""

from typing import Annotated

import typer

from pgembed.cli.common import DsnOption, JsonOption, console, print_json, printable


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("migrate")(migrate)


def migrate(
    dsn: DsnOption = None,
    to: Annotated[str, typer.Option("--to", metavar="REVISION", help="Stop at this revision.")] = "head",
    down: Annotated[
        str | None,
        typer.Option("--down", metavar="REVISION", help="Go back to this revision ('base': remove everything)."),
    ] = None,
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the script instead of running it; needs no database.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Create or upgrade the schema pgembed. Safe to run again, and from several places at once.

    \b
    Examples:
        pgembed migrate
        pgembed migrate --dsn postgresql://me@db.example.com/app
        pgembed migrate --sql > pgembed.sql
    """
    from pgembed.db import migrations

    for wanted, end in ((to, "head"), (down, "base")):
        if wanted is not None and wanted not in (known := [*migrations.revisions(), end]):
            raise typer.BadParameter(f"{wanted!r} is not a revision to go to; there are {', '.join(known)}.")
    if down is not None and (sql or to != "head"):
        raise typer.BadParameter("--down goes with neither --to nor --sql.")
    if sql:
        typer.echo(migrations.offline_script(to))
        return
    done = migrations.upgrade(dsn, to) if down is None else migrations.downgrade(dsn, down)
    left = migrations.left_behind(dsn) if down == "base" else None
    if as_json:
        document: dict[str, object] = {"direction": "up" if down is None else "down", "revisions": done}
        print_json(document if left is None else {**document, "left": left})
    elif done:
        console.print(f"{'Applied' if down is None else 'Undone'}: {', '.join(done)}", markup=False)
        for what in left or ():
            console.print(printable(f"Left in place: {what}"), markup=False)
    else:
        console.print("The schema is as wanted already; nothing was done.")
