"""`pgembed search`: the chunks nearest in meaning to a text."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pgembed.cli.common import DsnOption, JsonOption, connection, console, print_json, printable

if TYPE_CHECKING:
    from pgembed.vectors.search import Hit

# What pygments calls a language where its name is another.
_LEXERS = {"c_sharp": "csharp", "csharp": "csharp", "cpp": "cpp", "tsx": "tsx"}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("search")(search)


def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What you look for, in words or as code.")],
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Hits to show.")] = 10,
    language: Annotated[str | None, typer.Option("--language", help="Only this language, such as python.")] = None,
    path: Annotated[
        str | None, typer.Option("--path", metavar="GLOB", help="Only below this path: src/auth, '*/tests/*.py'.")
    ] = None,
    source: Annotated[str | None, typer.Option("--source", metavar="NAME", help="Only this source.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Only function, method, class or window.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every vector; leave the index out.")] = False,
    generation: Annotated[
        int | None, typer.Option("--generation", metavar="ID", help="Ask this generation, not the active one.")
    ] = None,
    dsn: DsnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search the code by meaning.

    \b
    Examples:
        pgembed search "retry a request with backoff"
        pgembed search "parse a date" --language python --path 'src/*' --k 5
        pgembed search "open a socket" --json
    """
    from pgembed.vectors.search import encoder_of, searchable
    from pgembed.vectors.search import search as run

    with connection(dsn, vectors=True) as conn:
        chosen = searchable(conn, generation)
        hits = run(
            conn,
            encoder_of(chosen),
            text,
            k=k,
            language=language,
            path=path,
            source=source,
            kind=kind,
            generation_id=chosen.id,
            exact=exact,
        )
    if as_json:
        print_json([asdict(hit) for hit in hits])
        return
    for hit in hits:
        show_hit(hit, text)
    if not hits:
        console.print("No chunk passes these filters.")


def show_hit(hit: "Hit", text: str, *, lines: int = 8) -> None:
    """Print one hit: where it stands, its score, and the `lines` lines that share most with the query, highlighted."""
    from rich.syntax import Syntax
    from rich.text import Text

    from pgembed.vectors.excerpt import excerpt

    place = f"{hit.path}:{hit.start_line}-{hit.end_line}" if hit.path else f"chunk {hit.chunk_id}"
    heading = Text.assemble(
        (f"{hit.rank:>2}  {hit.score:.3f}  ", "bold"),
        (printable(place), "cyan"),
        f"  {hit.kind} ",
        (printable(hit.symbol), "bold"),
        ("" if hit.source is None else f"  [{printable(hit.source)}]", "dim"),
        ("" if hit.locations < 2 else f"  and {hit.locations - 1} more places", "dim"),
    )
    console.print(heading)
    offset, shown = excerpt(hit.content, text, lines)
    code = Syntax(
        printable(shown.expandtabs(4)),
        _LEXERS.get(hit.language, hit.language),
        theme="ansi_dark",
        background_color="default",
        line_numbers=True,
        start_line=(hit.start_line or 1) + offset,
    )
    console.print(code)
    console.print()
