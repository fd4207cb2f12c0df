"""The command `pgembed`: registers the commands and turns errors into exit codes (0 done, 1 failed, 2 wrong usage)."""

import importlib
import importlib.util
import sys
from typing import Annotated

import typer

from pgembed.cli.common import errors
from pgembed.errors import PgembedError

# In the order of the data's path, which is the order that --help shows.
_COMMANDS = (
    "quickstart",
    "db",
    "migrate",
    "ingest",
    "pairs",
    "triplets",
    "encoders",
    "train",
    "export",
    "reindex",
    "generations",
    "search",
    "eval",
    "status",
    "doctor",
)

app = typer.Typer(
    name="pgembed",
    help="Turn the code in your Postgres into embeddings that know that code.",
    epilog="Start with `pgembed quickstart`. Every command has --help with an example.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from pgembed import __version__

        typer.echo(f"pgembed {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


for _name in _COMMANDS:
    if importlib.util.find_spec(f"pgembed.cli.{_name}"):
        importlib.import_module(f"pgembed.cli.{_name}").register(app)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except PgembedError as error:
        errors.print(f"Error: {error}", style="red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        errors.print("Interrupted. What was committed is kept: run the same command again to go on.")
        sys.exit(130)
    except Exception as error:
        _explain_database_error(error)
        raise


def _explain_database_error(error: Exception) -> None:
    """Turn what the server says (connection lost, disk full, no privilege) into a message with a remedy."""
    if "psycopg" not in sys.modules:
        return
    import psycopg

    if not isinstance(error, psycopg.Error):
        return
    remedies: list[tuple[type[psycopg.Error], str]] = [
        (
            psycopg.errors.DiskFull,
            "Free space on the server's disk, then run the same command again: it goes on.",
        ),
        (
            psycopg.errors.InsufficientPrivilege,
            "Grant the role what it lacks, or use --dsn with another one.",
        ),
        (
            psycopg.errors.UndefinedTable,
            "Run `pgembed migrate`; `pgembed doctor` tells what else is missing.",
        ),
        (psycopg.errors.QueryCanceled, "Raise statement_timeout for this role, or run at a quieter time."),
        (
            psycopg.OperationalError,
            "See whether the server runs, then run the same command again: it goes on.",
        ),
    ]
    for kind, remedy in remedies:
        if isinstance(error, kind):
            errors.print(f"Error: {str(error).strip()}\n  {remedy}", style="red", markup=False)
            sys.exit(1)
