"""`pgembed encoders`: which encoders there are by name, and who brings them."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table
from rich.text import Text

from pgembed.cli.common import JsonOption, console, print_json, printable

if TYPE_CHECKING:
    from pgembed.encoders.spec import EncoderSpec

_TOWER = ("name", "weights", "dimensions", "pooling", "max_tokens", "licence", "licence_note")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("encoders")(encoders)


def encoders(as_json: JsonOption = False) -> None:
    """List the encoders: built in, registered by other packages, and exported on this machine.

    For each tower: dimensions, pooling, the most tokens that it reads, licence, and whether the weights are at hand. A
    package whose encoder cannot be used is listed with the reason. Any folder in sentence-transformers' layout serves
    as well: see `pgembed export --checkpoint`; docs/plugins.md tells how to write a package.

    \b
    Examples:
        pgembed encoders
        pgembed encoders --json
    """
    rows = [*_named(), *_exported()]
    if as_json:
        print_json(rows)
        return
    for heading in dict.fromkeys(_heading(row) for row in rows):
        _show(heading, [row for row in rows if _heading(row) == heading])


def _named() -> list[dict[str, Any]]:
    from dataclasses import asdict

    from pgembed.encoders.catalogue import all_encoders

    found = all_encoders()
    rows = [_row(known.spec, asdict(known.origin), _why_not(known.spec)) for known in found.encoders]
    for entry in found.broken:
        rows.append(
            {
                "name": entry.name,
                "from": asdict(entry.origin),
                "towers": [],
                "licence": None,
                "at_hand": False,
                "why_not": str(entry.error),
            }
        )
    return rows


def _exported() -> list[dict[str, Any]]:
    from pgembed.config import settings
    from pgembed.vectors.artefacts import exported_encoders

    return [
        {
            **_row(manifest.spec, {"kind": "exported", "path": str(manifest.path)}, None),
            "precision": manifest.precision,
        }
        for manifest in exported_encoders(settings().models_dir)
    ]


def _row(spec: "EncoderSpec", origin: dict[str, Any], why_not: str | None) -> dict[str, Any]:
    return {
        "name": spec.name,
        "from": origin,
        "towers": [{key: getattr(tower, key) for key in _TOWER} for tower in spec.towers],
        "licence": spec.licence,
        "at_hand": why_not is None,
        "why_not": why_not,
    }


def _why_not(spec: "EncoderSpec") -> str | None:
    """Return why an encoder's weights are not at hand; None where they are. Nothing is fetched."""
    from pgembed.encoders.weights import locate
    from pgembed.errors import PgembedError

    try:
        for tower in spec.towers:
            locate(tower)
    except PgembedError as error:
        return str(error)
    return None


def _heading(row: dict[str, Any]) -> str:
    origin = row["from"]
    if origin["kind"] == "built-in":
        return "Built in"
    if origin["kind"] == "exported":
        return f"Exported, in {Path(origin['path']).parent}"
    return f"From {origin['distribution']} {origin['version']}".rstrip()


def _show(heading: str, rows: list[dict[str, Any]]) -> None:
    console.print(Text(printable(heading), "bold"))
    # widths that add up to less than 80 and are the same under each heading
    shown = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=True)
    shown.add_column("  encoder", width=16, overflow="fold")
    shown.add_column("dims", width=5, justify="right")
    shown.add_column("pooling", width=7)
    shown.add_column("tokens", width=6, justify="right")
    shown.add_column("licence", width=20, overflow="fold")
    shown.add_column("weights", width=11)
    for row in rows:
        precision = row.get("precision", "float32")
        name = Text("  " + printable(row["name"] if precision == "float32" else f"{row['name']} ({precision})"))
        state = "at hand" if row["at_hand"] else "not at hand" if row["towers"] else "broken"
        if not row["towers"]:
            shown.add_row(name, "", "", "", "", state)
        for tower in row["towers"]:
            shown.add_row(
                name,
                str(tower["dimensions"]),
                tower["pooling"],
                f"{tower['max_tokens']}",
                Text(printable(tower["licence"])),
                state,
            )
            name, state = Text(""), ""
    console.print(shown)
    reasons = dict.fromkeys(row["why_not"] for row in rows if row["why_not"])
    notes = [
        f"{', '.join(row['name'] for row in rows if row['why_not'] == reason)}: {reason}" for reason in reasons
    ] + [
        f"{tower['name']}: {tower['licence']}, {tower['licence_note']}"
        for row in rows
        for tower in row["towers"]
        if tower["licence_note"]
    ]
    for note in dict.fromkeys(notes):
        console.print(Text(textwrap.indent(printable(note), "  "), "dim"))
    console.print()
