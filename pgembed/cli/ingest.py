"""`pgembed ingest`: files into chunks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgembed.cli.common import (
    DsnOption,
    JsonOption,
    connection,
    console,
    print_json,
    printable,
    processors,
    seconds,
    show_progress,
)

if TYPE_CHECKING:
    from pgembed.corpus.report import IngestReport


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("ingest")(ingest)


def _path(text: str) -> Path:
    if not text:  # which a Path takes for the folder where one stands
        raise typer.BadParameter("A PATH is empty: a shell variable that is not set?")
    return Path(text)


def ingest(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH…", parser=_path, help="Folders or files; each is a source of its own."),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="Name of the source (one PATH only). Default: the folder's name. "
            "Another name later moves its files to other splits.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="GLOB", help="Leave out, as .gitignore would; repeatable.")
    ] = None,
    max_file_bytes: Annotated[
        int, typer.Option("--max-file-bytes", min=1, help="Larger files are left out.")
    ] = 1_000_000,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes that read files. Default: one a processor.")
    ] = None,
    dsn: DsnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read code into the database: functions and methods, their docstrings, their tokens.

    A second run touches only what changed. What cannot be used is left out, counted by reason here, and listed in
    pgembed.rejected_items; a file that gave chunks, and of which a part could not be used, is told as partly read.

    \b
    Examples:
        pgembed ingest ~/src/shop
        pgembed ingest ~/src/shop --name shop --exclude 'migrations/' --exclude '*.test.ts'
    """
    from pgembed.corpus.ingest import ingest as run
    from pgembed.errors import CorpusError

    if name is not None and len(paths) > 1:
        raise typer.BadParameter("--name goes with one PATH.")
    for path in paths:  # before the first is read: a slip in the third must not cost the time of two
        if not path.expanduser().exists():
            raise CorpusError(f"{printable(str(path))} does not exist.", remedy="Give folders or files of code.")
    with connection(dsn, access="session") as conn:
        reports = [
            run(
                conn,
                path,
                name=name,
                exclude=exclude or (),
                max_file_bytes=max_file_bytes,
                jobs=jobs or processors(),
                progress=show_progress(),
            )
            for path in paths
        ]
    if as_json:
        print_json([report.as_dict() for report in reports])
        return
    for report in reports:
        _show(report)


def _show(report: "IngestReport") -> None:
    rate = f"; {report.files_per_second:,.0f} files/s"
    if report.files_read:
        rate += f", {report.bytes_read / report.seconds / 1e6:.1f} MB/s"
    _line(f"{report.source} ({report.root}), {seconds(report.seconds)}{rate}")
    _line(
        f"  files   {report.files_read:,} read ({report.files_changed:,} changed, {report.files_empty:,} without code)"
        f", {report.files_unchanged:,} unchanged, {report.files_deleted:,} deleted"
    )
    _line(
        f"  chunks  {report.chunks_new:,} new, {report.chunks_reused:,} reused, {report.chunks_deleted:,} deleted; "
        f"now {report.chunks:,} at {report.locations:,} places"
    )
    if report.languages:
        _line("  read    " + ", ".join(f"{count:,} {language}" for language, count in report.languages.most_common()))
    if report.files_ignored:
        _line(f"  excluded by .gitignore, --exclude, or as caches: {report.files_ignored:,} files and folders")
    for outcome, reasons in report.examples.items():
        for reason, examples in reasons.items():
            count = report.rejected(outcome)[reason]
            more = " …" if count > len(examples) else ""
            _line(f"  {outcome}, {reason}: {count:,} ({', '.join(examples)}{more})")


def _line(text: str) -> None:
    # file names are other people's text: neither markup nor control characters of theirs reach the terminal
    console.print(printable(text).replace("\n", "\\n"), markup=False)
