"""`pgembed reindex`: embed every chunk into a generation."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgembed.cli.common import DsnOption, JsonOption, connection, console, print_json, seconds, show_progress

if TYPE_CHECKING:
    from pgembed.vectors.reindex import ReindexResult


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("reindex")(reindex)


def reindex(
    artefact: Annotated[
        Path | None,
        typer.Option("--artefact", metavar="DIR", exists=True, file_okay=False, help="Folder of an exported encoder."),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", metavar="NAME", help="Name of an exported encoder; the newest so named.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Chunks embedded and committed at a time.")] = 512,
    index: Annotated[
        str | None,
        typer.Option("--index", metavar="METHOD", help="ivfflat (default), hnsw or binary."),
    ] = None,
    recall: Annotated[
        float, typer.Option("--recall", min=0.01, max=1.0, help="recall@10 that the index is calibrated to.")
    ] = 0.95,
    activate: Annotated[bool, typer.Option("--activate", help="Answer searches from it once it is complete.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start a new generation though this encoder has one.")] = False,
    long: Annotated[
        str | None,
        typer.Option(
            "--long",
            metavar="HOW",
            help="Chunks longer than the encoder reads: truncate (default), or windows: embed all of it in overlapping "
            "windows, and average. Another way is another generation.",
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on: embed new chunks as they are ingested, until Ctrl-C.")
    ] = False,
    index_only: Annotated[
        bool, typer.Option("--index-only", help="Embed nothing: build the index anew while searches go on.")
    ] = False,
    engine: Annotated[
        str, typer.Option("--engine", help="local, or ray: workers on an existing Ray cluster (extra ray).")
    ] = "local",
    workers: Annotated[int, typer.Option("--workers", min=1, help="With --engine ray: how many.")] = 2,
    ray_address: Annotated[
        str | None, typer.Option("--ray-address", metavar="ADDRESS", help="Default: the cluster that Ray finds.")
    ] = None,
    dsn: DsnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Embed every chunk that has no vector yet, and index and calibrate the result.

    Without --artefact or --encoder it uses the active generation's encoder, so that new code becomes searchable; where
    nothing is active, the encoder that was exported last. Another encoder gets a generation of its own, and searches
    stay with the active one until the new one is activated. Interrupted at any point, the same command goes on. Run it
    several times at once, on as many hosts as you like: the workers share what is to be done.

    \b
    Examples:
        pgembed reindex --batch 512
        pgembed reindex --artefact ~/models/ours --activate
        pgembed reindex --encoder minilm --index hnsw --recall 0.98
        pgembed reindex --long windows
        pgembed reindex --watch
        pgembed reindex --index-only
        pgembed reindex --engine ray --workers 8 --dsn postgresql://me@db.example.com/app
    """
    from functools import partial

    from pgembed.config import settings
    from pgembed.encoders.windows import LONG
    from pgembed.vectors import artefacts
    from pgembed.vectors.index import METHODS
    from pgembed.vectors.reindex import index_anew, load_encoder
    from pgembed.vectors.reindex import reindex_with as run
    from pgembed.vectors.watching import watch as follow

    if artefact is not None and encoder is not None:
        raise typer.BadParameter("--artefact and --encoder both choose an encoder: give one.")
    if index is not None and index not in METHODS:
        raise typer.BadParameter(f"{index!r} is not an index method; there are {', '.join(METHODS)}.")
    if long is not None and long not in LONG:
        raise typer.BadParameter(f"{long!r} is no way to embed long chunks; there are {', '.join(LONG)}.")
    if engine not in ("local", "ray"):
        raise typer.BadParameter(f"{engine!r} is no engine; there are local and ray.")
    if engine == "ray" and (watch or index_only):
        raise typer.BadParameter("--engine ray goes with neither --watch nor --index-only.")
    if watch and (fresh or index_only):
        raise typer.BadParameter("--watch goes with neither --fresh nor --index-only.")
    if artefact is None:
        with connection(dsn) as conn:
            artefact = artefacts.choose_artefact(conn, settings().models_dir, encoder)
    progress = show_progress()
    if engine == "ray":
        from pgembed.vectors.fleet import reindex_on_ray

        result = reindex_on_ray(
            dsn,
            artefact.absolute(),
            workers=workers,
            address=ray_address,
            progress=progress,
            batch=batch,
            index_method=index,
            target_recall=recall,
            activate=activate,
            fresh=fresh,
            long=long,
        )
        print_json(result.to_json()) if as_json else _tell(result)
        return
    loaded = load_encoder(artefact, progress)
    if index_only:
        result = index_anew(dsn, loaded, target_recall=recall, progress=progress)
        print_json(result.to_json()) if as_json else _tell(result)
        return
    begin = partial(
        run,
        dsn,
        loaded,
        batch=batch,
        index_method=index,
        target_recall=recall,
        activate=activate,
        long=long,
        progress=progress,
    )
    if not watch:
        result = begin(fresh=fresh)
        print_json(result.to_json()) if as_json else _tell(result)
        return
    for number, result in enumerate(follow(dsn, begin, progress=progress)):
        if result.embedded or number == 0:
            print_json(result.to_json()) if as_json else _tell(result)


def _tell(result: "ReindexResult") -> None:
    def line(text: str) -> None:
        console.print(text, markup=False)

    rate = f" ({result.chunks_per_second:,.0f} chunks/s)" if result.chunks_per_second else ""
    if result.kind == "index":
        line(f"Built the index anew in {seconds(result.index_seconds)}.")
    elif result.embedded:
        line(f"Embedded {result.embedded:,} chunks with {result.encoder} in {seconds(result.embedding_seconds)}{rate}.")
    else:
        line("Every chunk had its vector already.")
    if result.rejected:
        line(f"{result.rejected:,} chunks got no usable vector: pgembed.rejected_items tells which.")
    if result.long_chunks and result.long == "truncate":
        line(
            f"{result.long_chunks:,} chunks are longer than the {result.max_tokens} tokens that the encoder reads, and "
            "were cut there. To embed all of them: pgembed reindex --long windows"
        )
    elif result.long_chunks:
        line(f"{result.long_chunks:,} chunks longer than {result.max_tokens} tokens were embedded in windows.")
    effort = {"ivfflat": "probes", "hnsw": "ef_search", "binary": "candidates"}[result.index_method]
    lists = f", {result.lists:,} lists" if result.index_method == "ivfflat" else ""
    line(
        f"Generation {result.generation_id}: {result.rows:,} vectors, {result.index_method}{lists}, "
        f"{result.probes} {effort} for recall@10 {result.index_recall:.3f}; {result.state}."
    )
    if result.state in ("ready", "retired"):
        line(f"To answer searches from it: pgembed generations activate {result.generation_id}")
