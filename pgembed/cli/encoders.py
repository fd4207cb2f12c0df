"""`pgembed encoders`: which encoders there are by name."""

from typing import Any

import typer
from rich.text import Text

from pgembed.cli.common import JsonOption, console, print_json


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("encoders")(encoders)


def encoders(as_json: JsonOption = False) -> None:
    """List the presets: dimensions, pooling, licence, and whether the weights are at hand.

    Any folder in sentence-transformers' layout serves as well: see `pgembed export --checkpoint`.

    \b
    Examples:
        pgembed encoders
        pgembed encoders --json
    """
    rows = _rows()
    if as_json:
        print_json(rows)
        return
    for row in rows:
        console.print(
            Text.assemble((row["name"], "bold"), f": {'weights at hand' if row['at_hand'] else row['why_not']}")
        )
        for tower in row["towers"]:
            limit = f", {tower['max_tokens']} tokens at most" if tower["max_tokens"] else ""
            console.print(
                f"  {tower['weights']}: {tower['dimensions']} dimensions, {tower['pooling']} pooling{limit}; "
                f"licence: {tower['licence']}",
                markup=False,
            )


def _rows() -> list[dict[str, Any]]:
    from pgembed.encoders.presets import PLANNED, PRESETS
    from pgembed.encoders.weights import locate
    from pgembed.errors import PgembedError

    rows: list[dict[str, Any]] = []
    for name, spec in PRESETS.items():
        why_not = None
        try:
            for tower in spec.towers:
                locate(tower)
        except PgembedError as error:
            why_not = str(error)
        towers = [
            {key: getattr(tower, key) for key in ("weights", "dimensions", "pooling", "max_tokens", "licence")}
            for tower in spec.towers
        ]
        rows.append({"name": name, "towers": towers, "at_hand": why_not is None, "why_not": why_not})
    for name, planned in PLANNED.items():
        towers = [{**vars(tower), "max_tokens": None} for tower in planned.towers]
        rows.append({"name": name, "towers": towers, "at_hand": False, "why_not": planned.missing})
    return rows
