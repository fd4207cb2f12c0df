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

from pgembed.db.connection import connect, register_vectors
from pgembed.db.migrations import require_current
from pgembed.errors import DatabaseError
from pgembed.serving.failures import Busy

Connection = psycopg.Connection[Any]

_WAIT_S = 5.0
"""For a connection, while all are at work."""
_FIRST_WAIT_S = 1.0
"""The same where there was none yet, or none the last time: more likely there will be none."""
_STATEMENT_TIMEOUT_MS = 60_000
_REMEMBERED_S = 1.0
"""While the database is away, requests within this time are told so at once; then one tries again."""

# what the pool logs is what requests are told, again and again while the database is away
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


class Database:
    """A pool of autocommitting connections with pgvector's types. It recovers by itself when the database is back."""

    def __init__(self, conninfo: str, *, connections: int = 8) -> None:
        self._conninfo = conninfo
        self._lock = threading.Lock()
        self._reached = False
        self._away: tuple[float, DatabaseError] | None = None
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            conninfo,
            kwargs={
                "autocommit": True,
                "application_name": f"pgembed-serve[{os.getpid()}]",
                "connect_timeout": 5,
                "options": f"-c statement_timeout={_STATEMENT_TIMEOUT_MS}",
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
    def connection(self) -> Iterator[Connection]:
        """Lend a connection.

        Raises:
            DatabaseError: the database cannot be reached, or went away meanwhile; SchemaError: its schema does not fit.
            Busy: all connections are at work.
        """
        self._raise_if_away()
        try:
            with self._pool.connection(timeout=_WAIT_S if self._reached else _FIRST_WAIT_S) as conn:
                self._reached, self._away = True, None
                yield conn
        except psycopg.errors.QueryCanceled:
            raise
        except PoolClosed as error:
            raise Busy("The server is being stopped.", remedy="Ask again when it runs.") from error
        except psycopg.OperationalError as error:
            raise self._reason(error) from error

    def figures(self) -> dict[str, int]:
        """Return what the pool counts: its size, what is at work, who waits."""
        return self._pool.get_stats()

    def _raise_if_away(self) -> None:
        away = self._away
        if away is not None and time.monotonic() - away[0] < _REMEMBERED_S:
            raise DatabaseError(away[1].message, remedy=away[1].remedy)

    def _reason(self, error: psycopg.OperationalError) -> Exception:
        """Return why there was no connection, or why it was lost: what a fresh one meets."""
        with self._lock:
            try:
                self._raise_if_away()
                with connect(self._conninfo) as conn:
                    require_current(conn)
            except DatabaseError as reason:
                self._reached, self._away = False, (time.monotonic(), reason)
                return reason
        if isinstance(error, PoolTimeout):
            return Busy(f"All {self._pool.max_size} connections to the database are at work.", remedy="Ask again soon.")
        return DatabaseError(f"The connection to the database was lost: {str(error).strip()}", remedy="Ask again.")


def _configure(conn: Connection) -> None:
    require_current(conn)
    register_vectors(conn)
