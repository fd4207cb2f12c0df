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

from pgembed.db import objects
from pgembed.db.connection import connect, sqlalchemy_engine
from pgembed.db.dsn import resolve
from pgembed.db.objects import current_revision
from pgembed.db.preflight import preflight
from pgembed.db.sql import query, resource_text, resources
from pgembed.errors import DatabaseError, SchemaError
from pgembed_code.installation import upgrade_advice

if TYPE_CHECKING:
    from alembic.config import Config

SCHEMA = "pgembed"
_REVISION = re.compile(r"\d{4}")
_IN_THE_WAY = (
    psycopg.errors.DependentObjectsStillExist,
    psycopg.errors.DuplicateTable,
    psycopg.errors.DuplicateFunction,
    psycopg.errors.DuplicateObject,
)
_LOCK_KEY = 0x7067656D626564  # 'pgembed' in ASCII


@cache
def revisions() -> list[str]:
    """Return the revisions of this package, oldest first (a file is named `<revision>_<title>.py`)."""
    versions = resources() / "alembic" / "versions"
    return sorted(m[1] for p in versions.glob("*.py") if (m := re.match(r"(\d{4})_", p.name)))


def require_current(connection: psycopg.Connection) -> None:
    """Check that the schema is the one this package was written for.

    Raises:
        SchemaError: there is none, or it is older or newer; both revisions are named.
    """
    current, head = current_revision(connection), revisions()[-1]
    if current is None:
        raise SchemaError("The database has no schema pgembed yet.", remedy="Run `pgembed migrate`.")
    if current not in revisions():
        raise _unknown(current)
    if current != head:
        raise SchemaError(
            f"The database is at revision {current}, this package needs {head}.",
            remedy="Run `pgembed migrate`.",
        )


def upgrade(dsn: str | None = None, revision: str = "head") -> list[str]:
    """Bring the schema to `revision`; return the revisions that were applied, none when there was nothing to do.

    Raises:
        DatabaseError: the server lacks something (version, pgvector, privilege); all of it is listed.
        SchemaError: the database is newer than this package, or what others put into the schema is in the way.
    """
    from alembic import command

    with _migrating(dsn) as (connection, config, before):
        if before != (revisions()[-1] if revision == "head" else revision):
            _require_owner(connection)
            with _all_or_nothing():
                command.upgrade(config, revision)
        after = current_revision(connection)
    return [r for r in revisions() if (before or "") < r <= (after or "")]


def downgrade(dsn: str | None = None, revision: str = "base") -> list[str]:
    """Take the schema back to `revision`, dropping what later ones made; return the revisions that were undone.

    Drops what is pgembed's and nothing else: `left_behind` tells what stays after 'base'.

    Raises:
        SchemaError: others' objects need what would go; nothing was done.
    """
    from alembic import command

    with _migrating(dsn) as (connection, config, before):
        if before is None or (revision != "base" and revision >= before):
            return []
        _require_owner(connection)
        # objects.py knows what the newest revision made; of an older one the server says what is needed, one by one
        if revision == "base" and before == revisions()[-1] and (needing := objects.dependents(connection)):
            raise SchemaError(
                f"Nothing was done, since these need what would be dropped: {objects.listed(needing)}.",
                remedy="Drop them, or what in them refers to schema pgembed; then run it again.",
            )
        with _all_or_nothing():
            command.downgrade(config, revision)
        after = current_revision(connection)
        if after is None:
            _remove_schema(connection)
    return [r for r in reversed(revisions()) if (after or "") < r <= before]


def left_behind(dsn: str | None = None) -> list[str]:
    """Return what stays in a database that has no revision of pgembed any more, and why."""
    with connect(dsn) as conn:
        row = conn.execute(query("left_behind")).fetchone()
        assert row is not None  # noqa: S101 - a SELECT without FROM gives one row
        roles, has_vector, has_studies = row
        left = ["the extension vector"] if has_vector else []
        schema = conn.execute(query("schema_owner")).fetchone()
        if schema is not None:
            owner, _, _ = schema
            others = objects.standing(conn)
            left.append(
                f"the schema pgembed, with what is not pgembed's: {objects.listed(others)}"
                if others
                else f"the empty schema pgembed, which is {owner}'s and which this role could not make again"
            )
    left += ["the schema pgembed_tune (studies of `pgembed tune`)"] if has_studies else []
    return left + ([f"the roles {' and '.join(roles)}, which are the whole server's"] if roles else [])


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


def _unknown(current: str) -> SchemaError:
    if not _REVISION.fullmatch(current):
        return SchemaError(
            f"The schema pgembed is another application's: its alembic_version says {current!r}, no revision of ours.",
            remedy="Give it another name (ALTER SCHEMA pgembed RENAME TO …), or use another database.",
        )
    return SchemaError(
        f"The database is at revision {current}, which is newer than this package knows (up to {revisions()[-1]}).",
        remedy=upgrade_advice(),
    )


def _require_owner(conn: psycopg.Connection) -> None:
    """Check that this role may change the tables that are there.

    Raises:
        DatabaseError: they are another role's.
    """
    row = conn.execute(query("pgembed_owner")).fetchone()
    if row is not None and not row[1]:
        owner, _, role = row
        raise DatabaseError(
            f"The tables of schema pgembed are {owner}'s; {role} may not change them.",
            remedy=f"Run it as {owner}; or, to let {role} do it, as {owner}'s administrator: GRANT {owner} TO {role};",
        )


@contextlib.contextmanager
def _all_or_nothing() -> Iterator[None]:
    """Explain what others' objects in the schema, or an extension's place, can make of a migration: one transaction."""
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except DBAPIError as error:
        if not isinstance(error.orig, _IN_THE_WAY):
            raise
        said = error.orig.diag
        raise SchemaError(
            f"Nothing was done: {said.message_primary}" + (f" ({said.message_detail})" if said.message_detail else ""),
            remedy="Drop or rename what is in the way, run it again, and make it anew where it is needed.",
        ) from error


def _remove_schema(conn: psycopg.Connection) -> None:
    """Drop the version table, and the schema unless something stands in it, or this role could not make it again."""
    with conn.transaction():
        conn.execute("DROP TABLE IF EXISTS pgembed.alembic_version")
        owner = conn.execute(query("schema_owner")).fetchone()
        if owner is not None and owner[1] and owner[2] and not objects.standing(conn):
            conn.execute("DROP SCHEMA pgembed")


@contextlib.contextmanager
def _migrating(dsn: str | None) -> "Iterator[tuple[psycopg.Connection, Config, str | None]]":
    """Hold the lock and give Alembic a connection; check first that the server can carry the schema."""
    conninfo = resolve(dsn)
    with connect(conninfo) as lock:
        if problems := preflight(lock):
            raise DatabaseError(
                "The database cannot carry pgembed's schema:\n"
                + "\n".join(f"  - {problem.what}\n    {problem.remedy}" for problem in problems)
            )
        lock.execute("SELECT pg_advisory_lock(%s)", (_LOCK_KEY,))
        before = current_revision(lock)
        if before is not None and before not in revisions():
            raise _unknown(before)
        config = _config()
        with sqlalchemy_engine(conninfo).connect() as connection:
            config.attributes["connection"] = connection
            yield lock, config, before
