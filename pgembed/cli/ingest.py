"""`pgembed ingest`: files into chunks."""

from pathlib import Path
from typing import Annotated

import typer

from pgembed.cli.common import DsnOption, JsonOption, connection, console, print_json, printable, seconds, show_progress


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("ingest")(ingest)


def ingest(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH…", help="Folders or files; each is a source of its own.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the source (one PATH only). Default: the folder's name.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="GLOB", help="Leave out, as .gitignore would; repeatable.")
    ] = None,
    max_file_bytes: Annotated[
        int, typer.Option("--max-file-bytes", min=1, help="Larger files are left out.")
    ] = 1_000_000,
    dsn: DsnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read code into the database: functions and methods, their docstrings, their tokens.

    A second run touches only what changed. What cannot be used is left out, counted by reason here, and listed in
    pgembed.rejected_items.

    \b
    Examples:
        pgembed ingest ~/src/shop
        pgembed ingest ~/src/shop --name shop --exclude 'migrations/' --exclude '*.test.ts'
    """
    from pgembed.corpus.ingest import ingest as run

    if name is not None and len(paths) > 1:
        raise typer.BadParameter("--name goes with one PATH.")
    with connection(dsn) as conn:
        reports = [
            run(conn, path, name=name, exclude=exclude or (), max_file_bytes=max_file_bytes, progress=show_progress())
            for path in paths
        ]
    if as_json:
        print_json([{**vars(report), "languages": dict(report.languages)} for report in reports])
        return
    for report in reports:
        rate = f", {report.bytes_read / report.seconds / 1e6:.1f} MB/s" if report.files_read else ""
        console.print(
            printable(
                f"{report.source}: {report.files_read:,} files read, {report.files_unchanged:,} unchanged, "
                f"{report.files_deleted:,} gone; {report.chunks_new:,} new chunks, {report.chunks_deleted:,} removed; "
                f"now {report.chunks:,} chunks at {report.locations:,} places ({seconds(report.seconds)}{rate})"
            ),
            markup=False,
        )
        if report.languages:
            console.print("  " + ", ".join(f"{n:,} {k}" for k, n in report.languages.most_common()), markup=False)
        if report.files_ignored:
            console.print(f"  {report.files_ignored:,} files and folders are excluded (.gitignore, --exclude)")
        for reason, count in report.left_out.most_common():
            example = printable(report.examples[reason])
            console.print(f"  left out, {reason}: {count:,} (for instance {example})", markup=False)
