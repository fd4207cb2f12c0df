"""`pgembed pairs`: chunks that look alike."""

from typing import Annotated

import typer

from pgembed.cli.common import DsnOption, JsonOption, connection, console, print_json, seconds, show_progress


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("pairs")(pairs)


def pairs(
    min_jaccard: Annotated[
        float, typer.Option("--min-jaccard", min=0.1, max=1.0, help="Least Jaccard similarity of a pair.")
    ] = 0.5,
    full: Annotated[bool, typer.Option("--full", help="Do everything again, not only what is new.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Connections that share a full run.")] = 1,
    dsn: DsnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find all pairs of chunks that look alike, exactly, on the server; then refresh splits and triplets.

    Only new chunks are compared. Settings of splits and triplets are rows of pgembed.mining_settings.

    \b
    Examples:
        pgembed pairs
        pgembed pairs --min-jaccard 0.4 --jobs 2
        pgembed pairs --full --json
    """
    from pgembed.mining.pairs import find_pairs
    from pgembed.mining.triplets import are_stale, refresh_triplets

    with connection(dsn) as conn:
        progress = show_progress()
        report = find_pairs(conn, min_jaccard=min_jaccard, jobs=jobs, full=full, progress=progress)
        triplets = refresh_triplets(conn, progress) if report.chunks or full or are_stale(conn) else None
    if as_json:
        print_json({**vars(report), "triplets": triplets})
    elif not report.chunks:
        console.print(f"No new chunks; {report.pairs:,} pairs at Jaccard {report.min_jaccard:g} and above.")
    else:
        console.print(
            f"{report.chunks:,} chunks compared in {seconds(report.seconds)}: {report.pairs_found:,} new pairs, "
            f"{report.pairs:,} in all at Jaccard {report.min_jaccard:g} and above."
        )
    if triplets is not None and not as_json:
        console.print(f"{triplets:,} triplets; look at them with `pgembed triplets`.")
