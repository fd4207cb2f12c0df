"""`pgembed status`: what is in the database and what is happening to it."""

from typing import Any

import psycopg
import typer
from rich.table import Table
from rich.text import Text

from pgembed.cli.common import DsnOption, JsonOption, connection, console, print_json, printable


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("status")(status)


def status(dsn: DsnOption = None, as_json: JsonOption = False) -> None:
    """Show chunks, pairs, generations, training runs, rejected input and running commands.

    \b
    Examples:
        pgembed status
        pgembed status --json
    """
    with connection(dsn) as conn:
        found = _collect(conn)
    if as_json:
        print_json(found)
        return
    counts = found["counts"]
    console.print(
        f"{counts['chunks']:,} chunks ({counts['docstrings']:,} with a docstring) at {counts['locations']:,} places "
        f"in {counts['files']:,} files of {counts['sources']:,} sources; {counts['tokens']:,} tokens; "
        f"{counts['pairs']:,} candidate pairs; {counts['disk']} on disk",
        markup=False,
    )
    _print_rows("Sources", found["sources"])
    _print_rows("Generations", found["generations"], empty="none yet: run `pgembed reindex`")
    _print_rows("Training runs (newest first)", found["training_runs"])
    _print_rows("Rejected input", found["rejected"])
    _print_rows("Commands at work now", found["sessions"])


def _collect(conn: psycopg.Connection) -> dict[str, Any]:
    from psycopg.rows import dict_row

    from pgembed.db.sql import query

    with conn.cursor(row_factory=dict_row) as cursor:
        counts = cursor.execute(query("status_counts")).fetchone()
        parts = ("sources", "generations", "training_runs", "rejected", "sessions")
        # without parameters psycopg leaves % alone; the empty dict makes every query read it the same way
        return {"counts": counts, **{part: cursor.execute(query(f"status_{part}"), {}).fetchall() for part in parts}}


def _print_rows(title: str, rows: list[dict[str, Any]], *, empty: str | None = None) -> None:
    if not rows:
        if empty:
            console.print(f"{title}: {empty}", markup=False)
        return
    columns = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text("" if row[name] is None else printable(_short(row[name]))) for name in columns))
    console.print(table)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if hasattr(value, "strftime"):
        return str(value.strftime("%Y-%m-%d %H:%M:%S"))
    return str(value)
