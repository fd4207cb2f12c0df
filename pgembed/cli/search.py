"""`pgembed search`: the chunks that say or mean what a text says, or that are like a chunk."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pgembed.cli.common import DsnOption, JsonOption, connection, console, print_json, printable
from pgembed.errors import UnknownFilter

if TYPE_CHECKING:
    import psycopg

    from pgembed.vectors.explain import Explanation
    from pgembed.vectors.question import Question
    from pgembed.vectors.search import Hit

# What pygments calls a language where its name is another.
_LEXERS = {"c_sharp": "csharp", "csharp": "csharp", "cpp": "cpp", "tsx": "tsx"}
_COPIES_SHOWN = 3
_PLAN_WIDTH = 80  # a sort key is longer; --json has all of it


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("search")(search)


def search(
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help="What you look for, in words or as code.", show_default=False)
    ] = None,
    like: Annotated[
        str | None,
        typer.Option("--like", metavar="PATH:LINE", help="Search by example: what is like the code at this place."),
    ] = None,
    mode: Annotated[
        Literal["vector", "lexical", "hybrid"] | None,
        typer.Option("--mode", help="By meaning, by words, or both fused. Default: hybrid.", show_default=False),
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Hits to show.")] = 10,
    language: Annotated[str | None, typer.Option("--language", help="Only this language, such as python.")] = None,
    path: Annotated[
        str | None, typer.Option("--path", metavar="GLOB", help="Only below this path: src/auth, '*/tests/*.py'.")
    ] = None,
    source: Annotated[str | None, typer.Option("--source", metavar="NAME", help="Only this source.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Only function, method, class or window.")] = None,
    no_collapse: Annotated[
        bool, typer.Option("--no-collapse", help="Show near-duplicates as hits of their own.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the parts of each score, the plans, and milliseconds.")
    ] = False,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every vector; leave the index out.")] = False,
    generation: Annotated[
        int | None, typer.Option("--generation", metavar="ID", help="Ask this generation, not the active one.")
    ] = None,
    dsn: DsnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search the code by meaning, by its words, or by an example.

    \b
    Examples:
        pgembed search "retry a request with backoff"
        pgembed search "parse a date" --language python --path 'src/*' --k 5
        pgembed search HTTPServer --mode lexical
        pgembed search --like src/shop/cart.py:42
        pgembed search "open a socket" --explain
        pgembed search "open a socket" --json
    """
    if (text is None) == (like is None):
        raise typer.BadParameter("Give a text, or an example by --like.")
    if like is not None and mode not in (None, "vector"):
        raise typer.BadParameter("--like compares vectors: leave out --mode.")
    if mode == "lexical" and (exact or generation is not None):
        raise typer.BadParameter("--exact and --generation are about vectors: --mode lexical has none.")

    from pgembed.vectors.question import DEFAULT_MODE, Question
    from pgembed.vectors.search import find

    milliseconds: dict[str, float] = {}
    with connection(dsn, vectors=True) as conn, _wrong_filters():
        limits = Question(k, language, path, source, kind, exact, not no_collapse)
        if like is not None:
            question = _by_example(conn, limits, like, generation)
        else:
            assert text is not None  # noqa: S101 - one of the two is given
            question = _by_text(conn, limits, text, mode or DEFAULT_MODE, generation, milliseconds)
        hits = find(conn, question)
        explanation = _explain(conn, question, hits, milliseconds) if explain else None
        remark = _remark(conn, question)
    if as_json:
        found = [asdict(hit) for hit in hits]
        print_json(found if explanation is None else {"hits": found, "explanation": asdict(explanation)})
        return
    for hit in hits:
        show_hit(hit, text or "", explanation=explanation)
    if not hits:
        console.print("No chunk passes these filters." if question.query is not None else "No chunk has these words.")
    if remark:
        console.print(remark)
    if explanation is not None:
        _show_explanation(explanation)


@contextmanager
def _wrong_filters() -> Iterator[None]:
    """Turn a filter's value that does not exist into wrong usage of its option."""
    try:
        yield
    except UnknownFilter as error:
        raise typer.BadParameter(printable(str(error)), param_hint=f"--{error.filter}") from error


def _by_text(
    conn: "psycopg.Connection",
    limits: "Question",
    text: str,
    mode: Literal["vector", "lexical", "hybrid"],
    generation_id: int | None,
    milliseconds: dict[str, float],
) -> "Question":
    import time

    from pgembed.vectors.search import encoder_of, searchable

    question = limits.by_text(text, mode)
    if mode == "lexical":
        return question
    generation = searchable(conn, generation_id)
    started = time.perf_counter()
    encoder = encoder_of(generation)
    loaded = time.perf_counter()
    question = question.by_vector(encoder, text, generation)
    milliseconds["loading the encoder"] = (loaded - started) * 1000
    milliseconds["embedding the text"] = (time.perf_counter() - loaded) * 1000
    return question


def _by_example(conn: "psycopg.Connection", limits: "Question", place: str, generation_id: int | None) -> "Question":
    from pgembed.vectors.example import by_example, example_at
    from pgembed.vectors.search import searchable

    generation = searchable(conn, generation_id)
    return by_example(conn, limits, example_at(conn, place, limits.source), generation)


def _explain(
    conn: "psycopg.Connection", question: "Question", hits: "list[Hit]", milliseconds: dict[str, float]
) -> "Explanation":
    from dataclasses import replace

    from pgembed.vectors.explain import explain

    explanation = explain(conn, question, hits)
    return replace(explanation, milliseconds={**milliseconds, **explanation.milliseconds})


def _remark(conn: "psycopg.Connection", question: "Question") -> str:
    """Return what the user should know about chunks that words do not find yet; empty where all is well."""
    if question.tokens is None:
        return ""
    from pgembed.vectors.search import chunks_without_words

    count = chunks_without_words(conn)
    return (
        f"{count:,} chunks are found by their bodies' words at most, until the next `pgembed ingest`." if count else ""
    )


def show_hit(hit: "Hit", text: str, *, lines: int = 8, explanation: "Explanation | None" = None) -> None:
    """Print one hit: where it stands, its score, and the `lines` lines that share most with the query, highlighted."""
    from rich.syntax import Syntax
    from rich.text import Text

    from pgembed.vectors.excerpt import excerpt

    place = f"{hit.path}:{hit.start_line}-{hit.end_line}" if hit.path else f"chunk {hit.chunk_id}"
    heading = Text.assemble(
        (f"{hit.rank:>2}  {hit.score:.3f}  ", "bold"),
        (_line(place), "cyan"),
        f"  {_line(hit.kind)} ",
        (_line(hit.symbol), "bold"),
        ("" if hit.source is None else f"  [{_line(hit.source)}]", "dim"),
        ("" if hit.locations < 2 else f"  and {hit.locations - 1} more places", "dim"),
    )
    console.print(heading)
    for copy in hit.also[:_COPIES_SHOWN]:
        at = f"{copy['path']}:{copy['start_line']}-{copy['end_line']}" if copy["path"] else f"chunk {copy['chunk_id']}"
        console.print(Text(f"    also {_line(at)}  {_line(copy['symbol'])}  Jaccard {copy['jaccard']:.2f}", "dim"))
    if hit.copies > min(len(hit.also), _COPIES_SHOWN):
        console.print(Text(f"    and {hit.copies - min(len(hit.also), _COPIES_SHOWN)} more near-duplicates", "dim"))
    if explanation is not None:
        _show_parts(hit, explanation)
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


def _line(text: str) -> str:
    """Return `text` on one line, as it can be shown: a file's name may hold a line feed."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def _show_parts(hit: "Hit", explanation: "Explanation") -> None:
    """Print what a score is made of, a line for each part."""
    from rich.text import Text

    parts = []
    if hit.vector_rank is not None:
        parts.append(f"vectors: rank {hit.vector_rank}, cosine {hit.vector_score:.3f}")
    if hit.lexical_rank is not None:
        idf = {term.token: term.idf for term in explanation.terms}
        words = ", ".join(f"{_line(token)} {idf[token]:.1f}" for token in explanation.matched.get(hit.chunk_id, ()))
        parts.append(f"words: rank {hit.lexical_rank}, BM25 {hit.lexical_score:.2f} (idf: {words})")
    if hit.symbol_match:
        parts.append(f"symbol: it is the query, weight {explanation.settings['symbol_weight']:g}")
    for part in parts:
        console.print(Text(f"    {part}", "dim"))


def _show_explanation(explanation: "Explanation") -> None:
    console.print("Settings: " + ", ".join(f"{name} {value:g}" for name, value in explanation.settings.items()))
    if explanation.unknown:
        console.print(printable(f"No chunk has: {', '.join(explanation.unknown)}"), markup=False)
    for part, plan in explanation.plans.items():
        console.print(f"Plan of the search by {part}:")
        for line in plan:
            shown = printable(f"  {line}")
            console.print(shown if len(shown) <= _PLAN_WIDTH else f"{shown[: _PLAN_WIDTH - 1]}…", markup=False)
    console.print("Milliseconds: " + ", ".join(f"{part} {took:.1f}" for part, took in explanation.milliseconds.items()))
