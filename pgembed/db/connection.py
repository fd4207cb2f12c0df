"""Connections: which database, and how to reach it.

A pooler may lend one connection of the server to another client after each transaction. So whatever searches and reads
sets nothing but for its transaction, and prepares no statement where a proxy stands between; what needs a session of
its own (`access="session"`: advisory locks, LISTEN, settings that last) is refused there.
"""

import os
from typing import TYPE_CHECKING, Literal

import psycopg

from pgembed.db.access import is_proxied, require_session, require_writable
from pgembed.db.dsn import describe, resolve
from pgembed.db.sql import query
from pgembed.errors import DatabaseError

if TYPE_CHECKING:
    from sqlalchemy import Engine

Access = Literal["read", "write", "session"]


def connect(dsn: str | None = None, *, vectors: bool = False, access: Access = "read") -> psycopg.Connection:
    """Open an autocommitting connection, in UTF-8; its transactions are READ COMMITTED, whatever the default.

    `vectors` registers pgvector's types (float32 arrays are sent as vector). `access` "write" asks for a server that
    takes writes, "session" besides for a session of its own, which gets what long work needs: no time limits, and an
    early end when the client is gone.

    Raises:
        DatabaseError: the server cannot be reached, refuses, has no pgvector though `vectors` is set, or does not give
            the access.
    """
    conninfo = resolve(dsn)
    try:
        connection = psycopg.connect(
            conninfo, autocommit=True, client_encoding="UTF8", application_name=f"pgembed[{os.getpid()}]"
        )
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
        prepare_client(connection)
        if access != "read":
            require_writable(connection)
        if access == "session":
            require_session(connection, conninfo)
            connection.execute(query("own_session"))
        if vectors:
            register_vectors(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def prepare_client(connection: psycopg.Connection) -> None:
    """Set what this side does with a connection; nothing is set on the server."""
    # a deletion at REPEATABLE READ does not see what was committed since it began, and would leave it behind
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    if is_proxied(connection):
        # a statement would be prepared on one of the server's connections and run on another
        connection.prepare_threshold = None


def register_vectors(connection: psycopg.Connection) -> None:
    """Register pgvector's type (float32 arrays are sent as vector), whatever schema the extension was put into.

    Raises:
        DatabaseError: the extension is not in this database.
    """
    from pgvector.psycopg.vector import register_vector_info
    from psycopg.types import TypeInfo

    row = connection.execute(query("vector_schema")).fetchone()
    if row is None:
        raise DatabaseError(
            f"The database ({describe(connection.info.dsn)}) has no extension vector.",
            remedy="Run `pgembed migrate`.",
        )
    register_vector_info(connection, TypeInfo.fetch(connection, f"{row[0]}.vector"))


def sqlalchemy_engine(dsn: str | None = None) -> "Engine":
    """Return an engine without a pool for the same database, for Alembic and for the models."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    conninfo = resolve(dsn)
    return create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo), poolclass=NullPool)
