"""`pgembed pairs`: chunks that look alike."""

from typing import TYPE_CHECKING, Annotated

import typer

from pgembed.cli.common import DsnOption, JsonOption, connection, console, print_json, seconds, show_progress

if TYPE_CHECKING:
    from pgembed.mining.pairs import PairsReport


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("pairs")(pairs)


def pairs(
    min_jaccard: Annotated[
        float, typer.Option("--min-jaccard", min=0.1, max=1.0, help="Least Jaccard similarity of a pair.")
    ] = 0.5,
    full: Annotated[bool, typer.Option("--full", help="Do everything again, not only what is new.")] = False,
    approximate: Annotated[
        bool,
        typer.Option("--approximate", help="Compare by MinHash bands: for corpora too large for the exact join."),
    ] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Say what a full run would find and take, and stop.")
    ] = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Connections that share a full run.")] = 1,
    dsn: DsnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find all pairs of chunks that look alike, exactly, on the server; then refresh splits and triplets.

    Only new chunks are compared. Settings of splits and triplets are rows of pgembed.mining_settings.

    With --approximate every pair found is a true one with its exact Jaccard,
    but some are missing: of those at the threshold 5 in 100 are expected to
    be at most, of those above it fewer, and at the setting near_duplicate 1
    in 10,000. So a copy can, rarely, stand in two splits. The run measures
    what it missed on a random sample. A later run without --approximate
    compares everything again. The exact join is faster up to 100,000 chunks
    at least: ask --estimate.

    \b
    Examples:
        pgembed pairs
        pgembed pairs --min-jaccard 0.4 --jobs 2
        pgembed pairs --full --json
        pgembed pairs --estimate --min-jaccard 0.4
        pgembed pairs --approximate --jobs 4
    """
    from pgembed.mining.estimate import estimate_pairs
    from pgembed.mining.pairs import find_pairs
    from pgembed.mining.triplets import are_stale, refresh_triplets

    if estimate:
        with connection(dsn, access="write") as conn:
            foretold = estimate_pairs(conn, min_jaccard=min_jaccard)
        if as_json:
            print_json(vars(foretold))
        else:
            console.print(f"{foretold.chunks:,} chunks at Jaccard {foretold.min_jaccard:g}, by {foretold.sampled:,}:")
            console.print(str(foretold))
        return
    with connection(dsn, access="session") as conn:
        progress = show_progress()
        report = find_pairs(
            conn, min_jaccard=min_jaccard, jobs=jobs, full=full, approximate=approximate, progress=progress
        )
        triplets = refresh_triplets(conn, progress) if are_stale(conn) else None
    if as_json:
        print_json({**vars(report), "triplets": triplets})
    elif not report.chunks:
        console.print(f"No new chunks; {report.pairs:,} pairs at Jaccard {report.min_jaccard:g} and above.")
    else:
        console.print(
            f"{report.chunks:,} chunks compared in {seconds(report.seconds)}: {report.pairs_found:,} new pairs, "
            f"{report.pairs:,} in all at Jaccard {report.min_jaccard:g} and above."
        )
    if report.approximate and not as_json:
        _print_approximation(report)
    if triplets is not None and not as_json:
        console.print(f"{triplets:,} triplets; look at them with `pgembed triplets`.")


def _print_approximation(report: "PairsReport") -> None:
    """Say what may be missing."""
    console.print(
        f"Approximate: a pair at {report.min_jaccard:g} is found with probability {report.expected_recall:.1%}, one "
        f"above it more surely; a copy is missed with probability {report.copy_miss:.0e}, and could then stand in two "
        "splits."
    )
    if report.measured_recall is not None:
        console.print(
            f"Measured: {report.measured_recall:.2%} of the {report.recall_pairs:,} pairs that "
            f"{report.recall_chunks:,} chunks drawn at random truly have."
        )
    elif report.recall_chunks:
        console.print(f"Not measured: the {report.recall_chunks:,} chunks drawn at random have no pairs.")
    if report.crowded_buckets:
        console.print(
            f"Left out: {report.comparisons_left_out:,} comparisons in {report.crowded_buckets:,} buckets of more than "
            f"1,000 chunks (the largest: {report.largest_bucket:,}), unless another bucket brought them."
        )
    console.print("For all pairs: `pgembed pairs` without --approximate, which compares everything again.")
