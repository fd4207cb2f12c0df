"""What a connection may be used for: whether the server takes writes, and whether the session behind it is ours."""

import threading
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from pgembed.db.dsn import describe
from pgembed.db.sql import query
from pgembed.errors import DatabaseError

Connection = psycopg.Connection[Any]

_PROBES = 3
_PROBE_S = 5.0  # a pool that has no second connection to lend lets the probe wait


def require_writable(conn: Connection) -> None:
    """Check that the server takes writes.

    Raises:
        DatabaseError: it is a standby, or transactions are read-only by default; the remedy says where to go.
    """
    in_recovery, read_only, set_by, primary_host, primary_port = _row(conn, "write_access")
    if in_recovery:
        primary = "the primary" if primary_host is None else f"the primary, {primary_host}:{primary_port}"
        remedy = f"Point --dsn or PGEMBED_DSN at {primary}; search, status, doctor and serve work here."
        if "," in str(conninfo_to_dict(conn.info.dsn).get("host", "")):
            remedy = "Add target_session_attrs=read-write to the connection string, which then finds the primary."
        raise DatabaseError(f"The server is read-only: {_place(conn)} is a standby.", remedy=remedy)
    if read_only:
        raise DatabaseError(
            f"Transactions are read-only at {_place(conn)}: default_transaction_read_only is on ({set_by}).",
            remedy="Use a role or a database that may write; search, status, doctor and serve work here.",
        )


def require_session(conn: Connection, conninfo: str) -> None:
    """Check that `conn`, opened by `conninfo`, keeps one session of the server from one transaction to the next.

    Raises:
        DatabaseError: a pooler lends the server's connections by the transaction.
    """
    if is_proxied(conn) and shares_sessions(conn, conninfo):
        raise DatabaseError(
            f"A pooler in transaction mode stands before the database ({_place(conn)}), and this command needs a "
            "session of its own (advisory locks).",
            remedy="Point --dsn or PGEMBED_DSN at the server itself, or at a pool in session mode; search, status, "
            "doctor and serve work through this one.",
        )


def is_proxied(conn: Connection) -> bool:
    """Tell whether something stands between: it, not the server, then gave the process number at the start."""
    return bool(_row(conn, "backend_pid")[0] != conn.info.backend_pid)


def shares_sessions(conn: Connection, conninfo: str) -> bool:
    """Tell whether the proxy lends the session behind `conn` to others between two transactions.

    A second client opens a transaction: where it is given the session that `conn` was just on, or `conn` is on another
    one while that transaction lasts, sessions are shared. A pool that has no second session to lend makes the probe
    wait; where sessions are shared there is always the one that `conn` has left.
    """
    for _ in range(_PROBES):
        before = _row(conn, "backend_pid")[0]
        lent, after = _while_another_is_busy(conn, conninfo)
        if lent is None:
            return False
        if lent == before or after != before:
            return True
    return False


def _while_another_is_busy(conn: Connection, conninfo: str) -> tuple[int | None, int | None]:
    """Return the sessions of a second client in a transaction and, meanwhile, of `conn`; None where none is lent."""
    with psycopg.connect(conninfo, application_name="pgembed-probe") as other:
        waiting = threading.Timer(_PROBE_S, other.close)
        waiting.start()
        try:
            lent = _row(other, "backend_pid")[0]
        except psycopg.OperationalError:
            return None, None
        finally:
            waiting.cancel()
        after = _row(conn, "backend_pid")[0]
        other.rollback()
    return lent, after


def _place(conn: Connection) -> str:
    return describe(conn.info.dsn)


def _row(conn: Connection, name: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = conn.execute(query(name)).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM gives one row
    return row
