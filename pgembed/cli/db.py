"""`pgembed db`: the embedded server."""

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from pgembed.cli.common import DsnOption, JsonOption, console, print_json
from pgembed.config import settings
from pgembed.errors import MissingExtra

_group = typer.Typer(
    help="The embedded Postgres server, and psql on whichever database is in use.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(_group, name="db")


@_group.command()
def start(as_json: JsonOption = False) -> None:
    """Start the embedded server if it does not run, and print its connection string.

    It keeps running when the command ends, until `pgembed db stop`.

    \b
    Example:
        pgembed db start
    """
    from pgembed.db.embedded import EmbeddedServer

    server = EmbeddedServer(settings().postgres_dir)
    dsn = server.start()
    if as_json:
        print_json({"dsn": dsn, "data": server.data_dir, "version": server.server_version()})
    else:
        console.print(f'{server.server_version()} runs on {server.data_dir}\nPGEMBED_DSN="{dsn}"', markup=False)


@_group.command()
def stop() -> None:
    """Stop the embedded server; open transactions are rolled back.

    \b
    Example:
        pgembed db stop
    """
    from pgembed.db.embedded import EmbeddedServer

    server = EmbeddedServer(settings().postgres_dir)
    console.print("Stopped." if server.stop() else f"No server was running on {server.data_dir}.", markup=False)


@_group.command()
def status(as_json: JsonOption = False) -> None:
    """Tell whether the embedded server runs, and where. Exit code 1 when it does not.

    \b
    Example:
        pgembed db status --json
    """
    from pgembed.db.embedded import EmbeddedServer

    server = EmbeddedServer(settings().postgres_dir)
    running = server.is_running()
    if as_json:
        print_json({"running": running, "data": server.data_dir, "dsn": server.dsn if running else None})
    else:
        console.print(
            f"{server.server_version()} {'runs' if running else 'does not run'} on {server.data_dir}"
            + (f'\nPGEMBED_DSN="{server.dsn}"' if running else "\nStart it: pgembed db start"),
            markup=False,
        )
    if not running:
        raise typer.Exit(1)


@_group.command()
def roles(dsn: DsnOption = None, as_json: JsonOption = False) -> None:
    """Make the group roles pgembed_reader and pgembed_writer, with the least that each needs.

    A reader searches and reads; a writer ingests, mines, trains and evaluates as well; reindex and migrate stay the
    owner's. Run it as the owner, and again after an upgrade. Then grant the roles to whom you like.

    \b
    Examples:
        pgembed db roles --dsn postgresql://owner@db.example.com/app
        pgembed db psql -c 'GRANT pgembed_reader TO app'
    """
    from pgembed.cli.common import connection
    from pgembed.db.roles import ROLES, admin_option, apply_roles, not_to_give

    with connection(dsn, access="write") as conn:
        members, kept = apply_roles(conn), not_to_give(conn)
        remedy = admin_option(conn, kept)
    if as_json:
        print_json(
            {
                "roles": {
                    role: {"may": what, "members": members[role], "can_be_granted": role not in kept}
                    for role, what in ROLES.items()
                }
            }
        )
        return
    for role, what in ROLES.items():
        console.print(f"{role}: {what}; members: {', '.join(members[role]) or 'none yet'}", markup=False)
    if kept:
        console.print(f"You may not give them to others yet. As an administrator: {remedy}", markup=False)


@_group.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def psql(
    context: typer.Context,
    dsn: DsnOption = None,
    commands: Annotated[
        list[str] | None, typer.Option("--command", "-c", metavar="SQL", help="Run this and end; repeatable.")
    ] = None,
) -> None:
    """Open psql on the database in use: the embedded server's, else the one on PATH. Further arguments go to psql.

    \b
    Examples:
        pgembed db psql
        pgembed db psql -c 'SELECT count(*) FROM pgembed.triplets'
    """
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    from pgembed.db.dsn import resolve
    from pgembed.db.embedded import EmbeddedServer

    parts = {key: str(value) for key, value in conninfo_to_dict(resolve(dsn)).items() if value is not None}
    # a password in the arguments would stand in the process list
    password = parts.pop("password", None)
    environment = {**os.environ, **({"PGPASSWORD": password} if password else {})}
    try:
        program = EmbeddedServer(settings().postgres_dir).binary("psql")
    except MissingExtra:
        if (found := shutil.which("psql")) is None:
            raise
        program = Path(found)
    given = [part for command in commands or () for part in ("-c", command)]
    arguments = [str(program), make_conninfo(**parts), *given, *context.args]
    # Ctrl-C is psql's, which cancels the statement; subprocess would kill psql. A handler, since SIG_IGN is inherited.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        done = subprocess.run(arguments, env=environment, check=False)
    finally:
        signal.signal(signal.SIGINT, before)
    # whoever reads its output has seen enough, as with every other command
    raise typer.Exit(0 if done.returncode == -signal.SIGPIPE else done.returncode)
