"""Connections: which database, and how to reach it."""

import os
import re
from typing import TYPE_CHECKING

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgembed.config import settings
from pgembed.db.sql import query
from pgembed.errors import ConfigurationError, DatabaseError

if TYPE_CHECKING:
    from sqlalchemy import Engine

_SQLALCHEMY_SCHEME = re.compile(r"^(postgres(?:ql)?)\+\w+://")
# libpq ends the password at its first '@' and the host at its first '/': of 'me:a/b@db' it makes the host 'me' and the
# port 'a', of 'me:a@b@db' the host 'b@db', and what it makes of them is shown in messages
_UNENCODED_PASSWORD = re.compile(r"postgres(?:ql)?://[^?]*[@/][^?]*@")


def normalise(dsn: str) -> str:
    """Return `dsn` in libpq's keyword form; takes libpq's own two forms and SQLAlchemy's URLs.

    Raises:
        ConfigurationError: it is none of these.
    """
    text = _SQLALCHEMY_SCHEME.sub(r"postgresql://", dsn.strip())
    try:
        if _UNENCODED_PASSWORD.match(text):
            raise psycopg.ProgrammingError
        conninfo_to_dict(text)  # make_conninfo lets pass what is percent-encoded and no UTF-8
        return make_conninfo(text)
    except (psycopg.ProgrammingError, ValueError):  # ValueError: what UTF-8 or a C string cannot hold
        # libpq quotes the text that it could not read, which may be the password: so its message stays out.
        raise ConfigurationError(
            "The connection string cannot be read.",
            remedy="Use postgresql://user@host:5432/database or 'host=… dbname=… user=…'; "
            "put the password into ~/.pgpass or PGPASSWORD, or percent-encode it in the URL.",
        ) from psycopg.ProgrammingError("unreadable connection string (withheld: it may hold a password)")


def describe(dsn: str) -> str:
    """Return host, port, database and user of `dsn`, never its password."""
    parts = conninfo_to_dict(dsn)
    return " ".join(f"{key}={parts[key]}" for key in ("host", "port", "dbname", "user") if parts.get(key))


def resolve(dsn: str | None = None) -> str:
    """Return the connection string to use: `dsn`, else PGEMBED_DSN, else the embedded server's (started if needed).

    Raises:
        DatabaseError: `dsn` is blank, or no connection string.
    """
    if dsn is not None and not dsn.strip():
        raise DatabaseError(
            "--dsn is empty.",
            remedy="A shell variable that is not set? Leave --dsn away for PGEMBED_DSN or the embedded server.",
        )
    given = dsn or settings().dsn
    if given:
        return normalise(given)
    from pgembed.db.embedded import EmbeddedServer  # needs an extra

    return EmbeddedServer(settings().postgres_dir).start()


def connect(dsn: str | None = None, *, vectors: bool = False) -> psycopg.Connection:
    """Open an autocommitting connection; `vectors` registers pgvector's types (float32 arrays are sent as vector).

    Raises:
        DatabaseError: the server cannot be reached, refuses, or has no pgvector though `vectors` is set.
    """
    conninfo = resolve(dsn)
    try:
        connection = psycopg.connect(conninfo, autocommit=True, application_name=f"pgembed[{os.getpid()}]")
    except psycopg.OperationalError as error:
        remedy = (
            "Check --dsn or PGEMBED_DSN and that the server runs; "
            "without either, pgembed uses its embedded server (`pgembed db start`)."
        )
        if "password" in str(error):
            remedy = "Check the user, and give its password by PGPASSWORD, ~/.pgpass or the connection string."
        raise DatabaseError(
            f"Cannot connect to {describe(conninfo) or 'the database'}: {str(error).strip()}", remedy=remedy
        ) from error
    try:
        # what is done here is right at this level, whatever the database's default: a deletion that does not see what
        # was committed since it began would leave it behind
        connection.execute(query("isolate_statements"))
        if vectors:
            register_vectors(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def register_vectors(connection: psycopg.Connection) -> None:
    """Register pgvector's types (float32 arrays are sent as vector), whatever schema the extension was put into.

    Raises:
        DatabaseError: the extension is not in this database.
    """
    from pgvector.psycopg import register_vector

    connection.execute(query("make_vector_visible"))
    try:
        register_vector(connection)
    except psycopg.ProgrammingError as error:
        raise DatabaseError(
            f"The database ({describe(connection.info.dsn)}) has no extension vector.",
            remedy="Run `pgembed migrate`.",
        ) from error


def sqlalchemy_engine(dsn: str | None = None) -> "Engine":
    """Return an engine without a pool for the same database, for Alembic and for the models."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    conninfo = resolve(dsn)
    return create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo), poolclass=NullPool)
