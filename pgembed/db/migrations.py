"""Migrations: Alembic's revisions applied to schema pgembed, which keeps a version table of its own.

Two at once are safe: an advisory lock is held from before the revision is read until the last commit.
"""

import contextlib
import io
import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import psycopg

from pgembed.db.connection import connect, resolve, sqlalchemy_engine
from pgembed.db.preflight import preflight
from pgembed.db.sql import query, resource_text, resources
from pgembed.errors import DatabaseError, SchemaError

if TYPE_CHECKING:
    from alembic.config import Config

SCHEMA = "pgembed"
_LOCK_KEY = 0x7067656D626564  # 'pgembed' in ASCII


@cache
def revisions() -> list[str]:
    """Return the revisions of this package, oldest first (a file is named `<revision>_<title>.py`)."""
    versions = resources() / "alembic" / "versions"
    return sorted(m[1] for p in versions.glob("*.py") if (m := re.match(r"(\d{4})_", p.name)))


def current_revision(connection: psycopg.Connection) -> str | None:
    """Return the revision that the database stands at; None where there is no schema yet."""
    try:
        row = connection.execute(query("schema_revision")).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return None
    return None if row is None else str(row[0])


def require_current(connection: psycopg.Connection) -> None:
    """Check that the schema is the one this package was written for.

    Raises:
        SchemaError: there is none, or it is older or newer; both revisions are named.
    """
    current, head = current_revision(connection), revisions()[-1]
    if current is None:
        raise SchemaError("The database has no schema pgembed yet.", remedy="Run `pgembed migrate`.")
    if current not in revisions():
        raise _newer(current)
    if current != head:
        raise SchemaError(
            f"The database is at revision {current}, this package needs {head}.",
            remedy="Run `pgembed migrate`.",
        )


def upgrade(dsn: str | None = None, revision: str = "head") -> list[str]:
    """Bring the schema to `revision`; return the revisions that were applied, none when there was nothing to do.

    Raises:
        DatabaseError: the server lacks something (version, pgvector, privilege); all of it is listed.
        SchemaError: the database is newer than this package.
    """
    from alembic import command

    with _migrating(dsn) as (connection, config, before):
        command.upgrade(config, revision)
        after = current_revision(connection)
    return [r for r in revisions() if (before or "") < r <= (after or "")]


def downgrade(dsn: str | None = None, revision: str = "base") -> list[str]:
    """Take the schema back to `revision`, dropping what later ones made; return the revisions that were undone."""
    from alembic import command

    with _migrating(dsn) as (connection, config, before):
        if before is None or (revision != "base" and revision >= before):
            return []
        command.downgrade(config, revision)
        after = current_revision(connection)
        if after is None:
            with connection.transaction():
                connection.execute("DROP TABLE IF EXISTS pgembed.alembic_version")
                connection.execute("DROP SCHEMA IF EXISTS pgembed")
    return [r for r in reversed(revisions()) if (after or "") < r <= before]


def offline_script(revision: str = "head") -> str:
    """Return the SQL that `upgrade` would run on an empty database, for people who apply it by other means."""
    from alembic import command

    output = io.StringIO()
    config = _config(output)
    command.upgrade(config, revision, sql=True)
    return output.getvalue()


def apply_sql(op: Any, name: str) -> None:
    """Run a whole file under `sql/` in a revision, as it is: `op.execute` would read ' :word' as a parameter."""
    context = op.get_context()
    text = resource_text(name)
    if context.as_sql:
        context.impl.static_output(text)
    else:
        op.get_bind().exec_driver_sql(text, execution_options={"no_parameters": True})


def _config(output: io.StringIO | None = None) -> "Config":
    from alembic.config import Config

    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(resources() / "alembic").replace("%", "%%"))
    return config


def _newer(current: str) -> SchemaError:
    return SchemaError(
        f"The database is at revision {current}, which is newer than this package knows (up to {revisions()[-1]}).",
        remedy="Install the newer pgembed-code: pip install --upgrade pgembed-code",
    )


@contextlib.contextmanager
def _migrating(dsn: str | None) -> "Iterator[tuple[psycopg.Connection, Config, str | None]]":
    """Hold the lock and give Alembic a connection; check first that the server can carry the schema."""
    conninfo = resolve(dsn)
    with connect(conninfo) as lock, sqlalchemy_engine(conninfo).connect() as connection:
        if problems := preflight(lock):
            raise DatabaseError(
                "The database cannot carry pgembed's schema:\n"
                + "\n".join(f"  - {problem.what}\n    {problem.remedy}" for problem in problems)
            )
        lock.execute("SELECT pg_advisory_lock(%s)", (_LOCK_KEY,))
        before = current_revision(lock)
        if before is not None and before not in revisions():
            raise _newer(before)
        config = _config()
        config.attributes["connection"] = connection
        yield lock, config, before
