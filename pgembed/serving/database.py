"""Connections for many requests at once, and what is said while the database is away."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from pgembed.db.connection import connect, prepare_client, register_vectors
from pgembed.db.migrations import require_current
from pgembed.db.sql import query
from pgembed.errors import DatabaseError, PgembedError
from pgembed.serving.failures import Busy

Connection = psycopg.Connection[Any]

_ASK_S = 1.0
"""After so long without a connection it is asked why: the database is away, or all are at work."""
_WAIT_S = 5.0
"""For a connection after that, while all are at work."""
_REMEMBERED_S = 1.0
"""While the database is away, requests within this time are told so at once; then one tries again."""

# what the pool logs is what requests are told, again and again while the database is away
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


class Database:
    """A pool of autocommitting connections with pgvector's types. It recovers by itself when the database is back."""

    def __init__(self, conninfo: str, *, connections: int = 8) -> None:
        self._conninfo = conninfo
        self._lock = threading.Lock()
        self._away: tuple[float, DatabaseError] | None = None
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            conninfo,
            kwargs={
                "autocommit": True,
                "client_encoding": "UTF8",
                "application_name": f"pgembed-serve[{os.getpid()}]",
                "connect_timeout": 5,
            },
            min_size=1,
            max_size=connections,
            open=False,
            configure=_configure,
            # a connection that died while it was idle is replaced, and no request sees it
            check=ConnectionPool.check_connection,
            # failed attempts end soon, and the next request begins a new one: by default the pauses grow to minutes
            reconnect_timeout=0.5,
            name="serve",
        )

    def open(self) -> None:
        """Open the first connection, in the background."""
        self._pool.open(wait=False)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    @contextmanager
    def connection(self, *, transaction: bool = True) -> Iterator[Connection]:
        """Lend a connection, by default in a transaction with a time limit for each statement.

        Nothing is set beyond a transaction: a pooler may give the server's connection to another client after it.

        Raises:
            DatabaseError: the database cannot be reached, or went away meanwhile; SchemaError: its schema does not fit.
            Busy: all connections are at work.
        """
        self._raise_if_away()
        conn = self._lend()
        try:
            if transaction:
                with conn.transaction():
                    conn.execute(query("serving_timeout"))
                    yield conn
            else:
                yield conn
        except psycopg.errors.QueryCanceled:
            raise
        except psycopg.OperationalError as error:
            raise self._reason(error) from error
        finally:
            self._pool.putconn(conn)

    def figures(self) -> dict[str, int]:
        """Return what the pool counts: its size, what is at work, who waits."""
        return self._pool.get_stats()

    def _lend(self) -> Connection:
        try:
            try:
                conn = self._pool.getconn(timeout=_ASK_S)
            except PoolTimeout as error:
                reason = self._reason(error)
                if not isinstance(reason, Busy):
                    raise reason from error
                conn = self._pool.getconn(timeout=_WAIT_S)
        except PoolTimeout as error:
            raise self._reason(error) from error
        except PoolClosed as error:
            raise Busy("The server is being stopped.", remedy="Ask again when it runs.") from error
        self._away = None
        return conn

    def _raise_if_away(self) -> None:
        away = self._away
        if away is not None and time.monotonic() - away[0] < _REMEMBERED_S:
            raise DatabaseError(away[1].message, remedy=away[1].remedy)

    def _reason(self, error: psycopg.OperationalError) -> PgembedError:
        """Return why there was no connection, or why it was lost: what a fresh one meets."""
        with self._lock:
            try:
                self._raise_if_away()
                with connect(self._conninfo) as conn:
                    require_current(conn)
            except DatabaseError as reason:
                self._away = (time.monotonic(), reason)
                return reason
        if isinstance(error, PoolTimeout):
            return Busy(f"All {self._pool.max_size} connections to the database are at work.", remedy="Ask again soon.")
        return DatabaseError(f"The connection to the database was lost: {str(error).strip()}", remedy="Ask again.")


def _configure(conn: Connection) -> None:
    prepare_client(conn)
    require_current(conn)
    register_vectors(conn)
