"""The command `pgembed`: registers the commands and turns errors into exit codes (0 done, 1 failed, 2 wrong usage)."""

import errno
import importlib
import importlib.util
import os
import sys
from typing import Annotated, NoReturn

import typer

from pgembed.cli import standard_streams
from pgembed.cli.common import errors, printable
from pgembed.errors import PgembedError

# In the order of the data's path, which is the order that --help shows.
_COMMANDS = (
    "quickstart",
    "db",
    "migrate",
    "ingest",
    "sources",
    "pairs",
    "triplets",
    "encoders",
    "train",
    "tune",
    "export",
    "reindex",
    "generations",
    "index",
    "search",
    "serve",
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


def main() -> NoReturn:
    """Run the command line."""
    standard_streams.guard()
    code: int | str | None = 0
    try:
        try:
            _run()
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()  # what cannot be written is to be told here, and not when the interpreter shuts down
    except standard_streams.OutputLost as lost:
        standard_streams.discard()
        if not lost.reader_left:
            _fail(f"Standard output could not be written: {lost.reason.strerror}")
    sys.exit(code)


def _run() -> None:
    try:
        app()
    except PgembedError as error:
        _fail(str(error))
    except SystemExit as end:
        if end.code == 130:  # what Typer makes of a KeyboardInterrupt
            errors.print("Interrupted. What was committed is kept: run the same command again to go on.")
        raise
    except Exception as error:
        _explain_database_error(error)
        _explain_full_disk(error)
        _explain_system_error(error)
        raise


def _fail(message: str) -> NoReturn:
    errors.print(printable(f"Error: {message}"), style="red", markup=False)
    sys.exit(1)


def _explain_database_error(error: Exception) -> None:
    """Turn what the server says (connection lost, disk full, no privilege) into a message with a remedy."""
    if "psycopg" not in sys.modules:
        return
    from pgembed.db.remedies import explain

    if explained := explain(error):
        _fail(str(explained))


def _explain_system_error(error: Exception) -> None:
    """Turn a file that cannot be used, and an argument that is no text, into a message that names it."""
    if isinstance(error, OSError) and error.filename is not None:
        home = "" if os.environ.get("PGEMBED_HOME") is None else f" (it is {os.environ['PGEMBED_HOME']})"
        remedy = f"Give a path that this user can use; PGEMBED_HOME{home} says where pgembed keeps its own files."
        _fail(f"{error.strerror}: {os.fsdecode(error.filename)}\n  {remedy}")
    if isinstance(error, UnicodeEncodeError) and any("\ud800" <= c <= "\udfff" for c in str(error.object)):
        _fail(f"An argument is not text in UTF-8: {error.object!r}\n  Write it in UTF-8.")


def _explain_full_disk(error: BaseException) -> None:
    """Turn what is said when this machine's disk is full, by the system or by a library, into one with a remedy."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(cause):
            from pgembed.config import settings

            remedy = f"Free space there ({settings().home}), then run the same command again: it goes on."
            _fail(f"This machine's disk is full: {error}\n  {remedy}")
        cause = cause.__cause__ or cause.__context__
