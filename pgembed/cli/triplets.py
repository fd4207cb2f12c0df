"""`pgembed triplets`: what training will read, and why each row is there."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from pgembed.cli.common import DsnOption, JsonOption, connection, console, print_json, printable, show_progress
from pgembed.mining.triplets import Count, Triplet

_SHOWN_LINES = 12


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("triplets")(triplets)


def triplets(
    kind: Annotated[str | None, typer.Option("--kind", help="docstring or code.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="train, validation or test.")] = None,
    language: Annotated[str | None, typer.Option("--language", help="As in pgembed.code_chunks.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, max=1_000_000, help="How many to show.")] = 3,
    refresh: Annotated[bool, typer.Option("--refresh", help="Rebuild them first, after a change of settings.")] = False,
    by_vectors: Annotated[
        bool | None,
        typer.Option(
            "--by-vectors/--no-by-vectors",
            help="With --refresh: choose hard negatives, and drop false ones, by the active generation's vectors; "
            "later refreshes do the same.",
            show_default=False,
        ),
    ] = None,
    dsn: DsnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show some triplets side by side, count them by kind, split and rule, and warn about skew.

    Why one is here, in words: SELECT * FROM pgembed.explain_triplet(NUMBER). Settings are rows of
    pgembed.mining_settings and pgembed.mining_exclusions.

    \b
    Examples:
        pgembed triplets
        pgembed triplets --kind docstring --split train --limit 5
        pgembed triplets --refresh --json
        pgembed triplets --refresh --by-vectors
    """
    from pgembed.mining.skew import warnings
    from pgembed.mining.triplets import counts, refresh_triplets, sample

    for option, value, known in (("--kind", kind, ("docstring", "code")),
                                 ("--split", split, ("train", "validation", "test"))):  # fmt: skip
        if value is not None and value not in known:
            raise typer.BadParameter(f"{option} is one of {', '.join(known)}, not {value!r}.")
    if by_vectors is not None and not refresh:
        raise typer.BadParameter("--by-vectors and --no-by-vectors go with --refresh.")
    with connection(dsn, access="session" if refresh else "read") as conn:
        if refresh:
            refresh_triplets(conn, show_progress(), by_vectors=by_vectors)
        shown = sample(conn, kind=kind, split=split, language=language, limit=limit)
        found = counts(conn)
        said = warnings(conn, found)
    if as_json:
        print_json({"triplets": [vars(t) for t in shown], "counts": [vars(c) for c in found], "warnings": said})
        return
    for triplet in shown:
        print_triplet(triplet)
    if not found:
        console.print("There are no triplets yet: run `pgembed ingest PATH`, then `pgembed pairs`.")
        return
    if not shown and limit:
        console.print("No triplet is of this kind, split and language; there are:")
    _print_counts(found)
    for warning in said:
        console.print(f"! {printable(warning)}", markup=False)
    if shown:
        console.print(f"Why is one here? pgembed.explain_triplet({shown[0].ordinal}) says it in SQL.", markup=False)


def print_triplet(triplet: Triplet, *, lines: int = _SHOWN_LINES) -> None:
    """Show one triplet: the first lines of anchor, positive and negative beside each other, and why it is there."""
    table = Table(
        "anchor",
        f"positive (Jaccard {triplet.positive_jaccard:.2f})" if triplet.kind == "code" else "positive (its body)",
        f"negative (Jaccard to the positive {triplet.negative_jaccard:.2f})"
        if triplet.kind == "docstring"
        else f"negative (Jaccard {triplet.negative_jaccard:.2f})",
        title=f"{triplet.ordinal} · {triplet.rule} · {triplet.language} · {triplet.split}",
        title_justify="left",
        expand=True,
    )
    table.add_row(*(Text(_head(text, lines)) for text in (triplet.anchor, triplet.positive, triplet.negative)))
    console.print(table)


def _head(text: str, most: int) -> str:
    lines = printable(text).split("\n")
    return "\n".join(line[:200] for line in lines[:most]) + ("\n…" if len(lines) > most else "")


def _print_counts(found: list[Count]) -> None:
    table = Table("kind", "split", "language", "rule", "triplets", "anchors", "mean Jaccard to the negative", box=None)
    for count in found:
        table.add_row(
            count.kind, count.split, Text(printable(count.language)), count.rule, f"{count.triplets:,}",
            f"{count.anchors:,}", f"{count.negative_jaccard:.2f}",
        )  # fmt: skip
    console.print(table)
