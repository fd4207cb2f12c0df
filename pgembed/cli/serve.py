"""`pgembed serve`: search, triplets, training and the index over HTTP, and one page for people."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from pgembed.cli.common import DsnOption, connection, errors
from pgembed.errors import ConfigurationError, MissingExtra

DEFAULT_PORT = 8421


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("serve")(serve)


def serve(
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; one that other machines reach needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = DEFAULT_PORT,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", exists=True, dir_okay=False, help="File with the token. Else PGEMBED_TOKEN."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="A name that a proxy before us is called by; repeatable."),
    ] = None,
    provider: Annotated[Literal["cpu", "cuda"], typer.Option("--provider", help="What runs the model.")] = "cpu",
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Of the model. Default: the processors there are.")
    ] = None,
    connections: Annotated[int, typer.Option("--connections", min=1, help="To the database, at most.")] = 8,
    batch: Annotated[
        int, typer.Option("--batch", min=1, help="Queries that are embedded together at most; 1: each by itself.")
    ] = 32,
    dsn: DsnOption = None,
) -> None:
    """Serve a page and an API: search, comparisons, triplets, training curves, evaluations. /docs lists the API.

    The model of the active generation stays loaded, and another is followed when it is activated. Ctrl-C or SIGTERM
    finishes what was accepted, and ends.

    \b
    Examples:
        pgembed serve
        pgembed serve --port 9000 --dsn postgresql://me@db.example.com/app
        PGEMBED_TOKEN=… pgembed serve --host 0.0.0.0
        curl 'http://127.0.0.1:8421/api/search?q=retry+with+backoff&k=3'
    """
    try:
        from pgembed.serving.run import listen, run
    except ImportError as error:
        raise MissingExtra("serve", "Serving", str(error)) from error
    from pgembed.db.dsn import resolve
    from pgembed.encoders.session import require_provider
    from pgembed.serving.app import make_app
    from pgembed.serving.batching import Batching
    from pgembed.serving.guard import Access

    token = _token(token_file)
    access = Access.of(host, token, tuple(allow_host or ()))
    conninfo = resolve(dsn)
    # what stands in the way is said now, and not to the first request
    connection(conninfo).close()
    require_provider(provider)
    with listen(host, port) as listening:
        app = make_app(
            conninfo, access=access, provider=provider, threads=threads, connections=connections,
            batching=Batching(most=batch),
        )  # fmt: skip
        name, at = listening.getsockname()[:2]
        shown = f"[{name}]" if ":" in name else name
        errors.print(f"pgembed serves http://{shown}:{at}/ (API: /docs). Ctrl-C stops it.", markup=False)
        run(app, listening)
    errors.print("Stopped; what was accepted is answered.", markup=False)


def _token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get("PGEMBED_TOKEN") or None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The token cannot be read from {file}: {error}") from error
    if not token:
        raise ConfigurationError(f"{file} is empty: it should hold the token.")
    return token
