"""Work spread over connections: each piece is one transaction on the server, and Python only waits."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import SimpleQueue

import psycopg
from psycopg.conninfo import make_conninfo

from pgembed.db.connection import connect
from pgembed.progress import Progress

Piece = tuple[int, Callable[[psycopg.Connection], None]]
"""How much it is, in the progress's unit, and what to do in a transaction of its own."""

# A chunk that an ingest deletes between a join's snapshot and its insert breaks a foreign key: then it is done again.
_ATTEMPTS = 5
_TRANSIENT = (psycopg.errors.ForeignKeyViolation, psycopg.errors.DeadlockDetected)


def spread(
    conn: psycopg.Connection, work: list[Piece], jobs: int, progress: Progress, description: str, unit: str
) -> None:
    """Do all pieces, on `conn` alone or on `jobs` connections to the same database."""
    with progress.task(description, sum(amount for amount, _ in work), unit) as task:
        if jobs < 2 or len(work) < 2:
            for amount, do in work:
                attempt(conn, do)
                task.advance(amount)
            return
        # conn.info.dsn leaves the password out
        dsn = make_conninfo(conn.info.dsn, password=conn.info.password or None)
        connections = [connect(dsn, access="session") for _ in range(min(jobs, len(work)))]
        idle: SimpleQueue[psycopg.Connection] = SimpleQueue()
        for connection in connections:
            idle.put(connection)

        def run(piece: Piece) -> int:
            connection = idle.get()
            try:
                attempt(connection, piece[1])
            finally:
                idle.put(connection)
            return piece[0]

        pool = ThreadPoolExecutor(len(connections))
        try:
            for future in as_completed([pool.submit(run, piece) for piece in work]):
                task.advance(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for connection in connections:
                connection.cancel()
            raise
        finally:
            pool.shutdown()
            for connection in connections:
                connection.close()


def attempt(conn: psycopg.Connection, do: Callable[[psycopg.Connection], None]) -> None:
    """Do it in a transaction, and again where somebody else's deletion came in between."""
    for left in reversed(range(_ATTEMPTS)):
        try:
            with conn.transaction():
                do(conn)
        except _TRANSIENT:
            if not left:
                raise
        else:
            return
