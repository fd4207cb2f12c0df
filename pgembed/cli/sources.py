"""`pgembed sources`: the bodies of code that were ingested; list them, forget one."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from pgembed.cli.common import (
    DsnOption,
    JsonOption,
    connection,
    console,
    print_json,
    print_table,
    printable,
    show_progress,
)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(no_args_is_help=True, help="List what was ingested, and forget a source.")
    group.command("list")(list_)
    group.command("forget")(forget)
    app.add_typer(group, name="sources")


def list_(dsn: DsnOption = None, as_json: JsonOption = False) -> None:
    """List the sources: where each was read, its files, and the distinct chunks that stand in them.

    \b
    Examples:
        pgembed sources list
        pgembed sources list --json
    """
    from psycopg.rows import dict_row

    from pgembed.db.sql import query

    with connection(dsn) as conn, conn.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(query("status_sources")).fetchall()
    if as_json:
        print_json(found)
        return
    if not found:
        console.print("Nothing was ingested yet: run `pgembed ingest PATH`.")
        return
    shown = Table("name", "files", "chunks", "ingested", "root", box=None)
    for source in found:
        ingested = "" if source["ingested_at"] is None else f"{source['ingested_at']:%Y-%m-%d %H:%M}"
        shown.add_row(
            Text(printable(source["name"])), f"{source['files']:,}", f"{source['chunks']:,}", ingested,
            Text(printable(source["root"])),
        )  # fmt: skip
    print_table(shown)


def forget(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The source; see `sources list`.")],
    dsn: DsnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a source: its files, and the chunks that stand in no other, with their pairs, triplets and vectors.

    The folder is not touched: `pgembed ingest` brings it back. Interrupted, the same command goes on.

    \b
    Example:
        pgembed sources forget shop
    """
    from pgembed.corpus.forget import forget as run

    with connection(dsn, access="session") as conn:
        report = run(conn, name, show_progress())
    if as_json:
        print_json({"source": report.source, "files": report.files_deleted, "chunks": report.chunks_deleted})
        return
    console.print(
        printable(
            f"{report.source}: {report.files_deleted:,} files and {report.chunks_deleted:,} chunks are gone. "
            "Triplets follow with the next `pgembed pairs`."
        ),
        markup=False,
    )
