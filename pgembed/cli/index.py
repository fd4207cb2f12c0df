"""`pgembed index`: which index method is worth it here, measured on the vectors that there are."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pgembed.cli.common import (
    DsnOption,
    JsonOption,
    connection,
    console,
    print_json,
    require_folder_of,
    seconds,
    show_progress,
)

if TYPE_CHECKING:
    from pgembed.vectors.comparing import IndexComparison


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(no_args_is_help=True, help="Compare index methods. To build one anew: reindex --index-only.")
    group.callback()(_group)
    group.command("compare")(compare)
    app.add_typer(group, name="index")


def _group() -> None:
    pass  # with it `compare` stays a subcommand, though it is the only one


def compare(
    generation: Annotated[
        int | None, typer.Option("--generation", metavar="ID", help="Vectors of this generation, not the active one.")
    ] = None,
    sample: Annotated[
        int, typer.Option("--sample", min=1, max=10**9, help="Vectors to build each index over.")
    ] = 20_000,
    queries: Annotated[int, typer.Option("--queries", min=1, max=10**9, help="Searches at each effort.")] = 100,
    target_recall: Annotated[
        float, typer.Option("--target-recall", min=0.01, max=1.0, help="recall@10 that the recommendation reaches.")
    ] = 0.95,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.svg", help="Draw recall against milliseconds into this file.")
    ] = None,
    dsn: DsnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build ivfflat, hnsw and binary over a sample and show recall@10, milliseconds, build time and size of each.

    The scratch table and its indexes live in one transaction and are gone after it. Searches and reindexes go on.

    \b
    Examples:
        pgembed index compare
        pgembed index compare --sample 100000 --target-recall 0.98
        pgembed index compare --plot recall.svg
        pgembed index compare --json
    """
    if plot is not None and plot.suffix != ".svg":
        raise typer.BadParameter(f"--plot draws SVG: name a file that ends in .svg, not {plot.name}.")
    if plot is not None:
        require_folder_of(plot)

    from pgembed.db.sql import query
    from pgembed.errors import ConfigurationError
    from pgembed.evaluation.charts import standalone
    from pgembed.vectors.comparing import compare_indexes
    from pgembed.vectors.search import encoder_of, searchable

    with connection(dsn, vectors=True, access="session") as conn:
        chosen = searchable(conn, generation)
        encoder = encoder_of(chosen)
        texts = [row[0] for row in conn.execute(query("calibration_texts"), {"count": queries})]
        found = compare_indexes(
            conn,
            chosen.id,
            encoder.embed(texts, role="query"),
            sample=sample,
            target_recall=target_recall,
            progress=show_progress(),
        )
    if plot is not None:
        try:
            plot.write_text(standalone(draw(found)), encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"{plot} cannot be written: {error.strerror}.") from error
    if as_json:
        print_json(found.to_json())
    else:
        _show(found)


def draw(found: "IndexComparison") -> str:
    """Return recall against the median's milliseconds as SVG, a line for each method."""
    from pgembed.evaluation.charts import Series, lines

    series = [
        Series(
            one.method,
            [(point.p50_ms, point.recall) for point in one.points],
            [f"{one.method}, {one.effort_name} {point.effort}: {point.recall:.3f}, {point.p50_ms:.2f} ms"
             for point in one.points],
        )
        for one in found.methods
    ]  # fmt: skip
    return lines(
        series,
        x=f"median milliseconds a search, {found.rows:,} vectors",
        y=f"recall@{found.k}",
        log_x=True,
        level=found.target_recall,
    )


def _show(found: "IndexComparison") -> None:
    console.print(
        f"{found.rows:,} of the {found.rows_of_generation:,} vectors of generation {found.generation_id}, "
        f"{found.queries:,} queries; PostgreSQL {found.server}, pgvector {found.pgvector}, shared_buffers "
        f"{found.shared_buffers}; warm cache, one connection.",
        markup=False,
    )
    shown = Table("method", "effort", f"recall@{found.k}", "p50 ms", "p95 ms", "built in", "size", box=None)
    for one in found.methods:
        for number, point in enumerate(one.points):
            best = found.recommended is not None and found.recommended.method == one.method
            mark = " ←" if best and found.recommended is not None and found.recommended.point == point else ""
            of_lists = f"/{one.lists}" if one.lists is not None else ""
            shown.add_row(
                "" if number else one.method,
                f"{one.effort_name} {point.effort}{of_lists}",
                f"{point.recall:.3f}{mark}",
                f"{point.p50_ms:.2f}",
                f"{point.p95_ms:.2f}",
                "" if number else seconds(one.build_seconds),
                "" if number else f"{one.size_bytes / 2**20:,.0f} MB",
            )
    shown.add_row("exact", "all", f"{1:.3f}", f"{found.exact_p50_ms:.2f}", f"{found.exact_p95_ms:.2f}", "", "")
    console.print(shown)
    if found.recommended is None:
        console.print(f"None reaches recall@{found.k} {found.target_recall:g} here.", markup=False)
        return
    method, point = found.recommended.method, found.recommended.point
    how = "it has it" if method == found.method_of_generation else f"pgembed reindex --index {method} --fresh"
    console.print(
        f"Recommended: {method}, recall@{found.k} {point.recall:.3f} at {point.p50_ms:.2f} ms ({how}).", markup=False
    )
    if found.rows < found.rows_of_generation:
        console.print("A sample's milliseconds are less than the whole's; --sample compares more.", markup=False)
