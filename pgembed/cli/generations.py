"""`pgembed generations`: list them, choose the one that answers searches, go back, clear away."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from pgembed.cli.common import DsnOption, JsonOption, as_option, connection, console, print_json, print_table, printable


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(no_args_is_help=True, help="List, activate, roll back and prune generations of vectors.")
    group.command("list")(list_)
    group.command("activate")(activate)
    group.command("rollback")(rollback)
    group.command("prune")(prune)
    app.add_typer(group, name="generations")


def list_(dsn: DsnOption = None, as_json: JsonOption = False) -> None:
    """List the generations: encoder, precision, state, vectors, index (probes/lists, or the effort), its recall@10.

    \b
    Examples:
        pgembed generations list
        pgembed generations list --json
    """
    from pgembed.vectors.generations import list_generations

    with connection(dsn) as conn:
        found = list_generations(conn)
    if as_json:
        print_json([asdict(generation) for generation in found])
        return
    if not found:
        console.print("There is no generation yet: run `pgembed reindex`.", markup=False)
        return
    headings = ["id", "encoder", "precision", "state", "vectors", "rejected", "index", "recall@10", "size", "created"]
    shown = Table(*headings, "", box=None)
    for generation in found:
        effort = "" if generation.probes is None else f" {generation.probes}"
        lists = f"/{generation.lists}" if effort and generation.index_method == "ivfflat" else ""
        remarks = [
            "rollback goes here" if generation.is_previous else generation.error or "",
            "long chunks in windows" if generation.long == "windows" else "",
        ]
        shown.add_row(
            str(generation.id),
            Text(printable(generation.encoder)),
            "" if generation.precision is None else as_option(generation.precision),
            generation.state,
            "" if generation.row_count is None else f"{generation.row_count:,}",
            f"{generation.rejected:,}" if generation.rejected else "",
            f"{generation.index_method}{effort}{lists}",
            "" if generation.index_recall is None else f"{generation.index_recall:.3f}",
            "" if generation.size_bytes is None else f"{generation.size_bytes / 2**20:,.0f} MB",
            f"{generation.created_at:%Y-%m-%d %H:%M}",
            Text(printable("; ".join(filter(None, remarks)))),
        )
    print_table(shown)


def activate(
    generation_id: Annotated[int, typer.Argument(metavar="ID", help="The generation; see `generations list`.")],
    force: Annotated[
        bool, typer.Option("--force", help="Although something stands against it; recorded in its metrics.")
    ] = False,
    dsn: DsnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer searches from a generation. Checks that it is complete, indexed, and made by the encoder it names.

    \b
    Example:
        pgembed generations activate 3
    """
    from pgembed.vectors.generations import activate as run
    from pgembed.vectors.generations import previous_id

    with connection(dsn, access="write") as conn:
        run(conn, generation_id, force)
        before = previous_id(conn)
    if as_json:
        print_json({"active": generation_id, "previous": before})
    else:
        back = "" if before is None else f" `pgembed generations rollback` goes back to {before}."
        console.print(f"Generation {generation_id} answers searches.{back}", markup=False)


def rollback(dsn: DsnOption = None, as_json: JsonOption = False) -> None:
    """Answer searches from the generation that was active before. At once; doing it twice comes back.

    \b
    Example:
        pgembed generations rollback
    """
    from pgembed.vectors import table
    from pgembed.vectors.generations import get_generation, previous_id
    from pgembed.vectors.generations import rollback as run

    with connection(dsn, access="write") as conn:
        now = run(conn)
        before = previous_id(conn)
        missing = table.count_missing(conn, now, get_generation(conn, now).rejected)
    if as_json:
        print_json({"active": now, "previous": before, "missing": missing})
        return
    console.print(f"Generation {now} answers searches again.", markup=False)
    if missing:
        console.print(f"{missing:,} chunks that came since have no vector in it: run `pgembed reindex`.", markup=False)


def prune(
    ids: Annotated[
        list[int] | None, typer.Argument(metavar="[ID]...", help="These; without: all failed and old ones.")
    ] = None,
    keep: Annotated[int, typer.Option("--keep", min=1, help="Searchable generations that stay.")] = 2,
    include_previous: Annotated[
        bool, typer.Option("--include-previous", help="Also the one that rollback goes back to.")
    ] = False,
    dsn: DsnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Drop generations that failed or were retired, and free their disk space. Searches go on meanwhile.

    The active generation always stays, and the previous one unless --include-previous is given.

    \b
    Examples:
        pgembed generations prune
        pgembed generations prune 4 5
        pgembed generations prune --keep 1 --include-previous
    """
    from pgembed.vectors.generations import prune as run

    with connection(dsn, access="session") as conn:
        dropped = run(conn, keep, ids=ids or None, include_previous=include_previous)
    if as_json:
        print_json({"dropped": dropped})
    elif dropped:
        console.print(f"Dropped: {', '.join(map(str, dropped))}.", markup=False)
    else:
        console.print("There was nothing to drop.", markup=False)
