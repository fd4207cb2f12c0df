"""What the server says (connection lost, disk full, no privilege), with what to do about it."""

import psycopg

from pgembed.errors import DatabaseError

_REMEDIES: tuple[tuple[type[psycopg.Error], str], ...] = (
    (psycopg.errors.DiskFull, "Free space on the server's disk, then run the same command again: it goes on."),
    (
        psycopg.errors.InsufficientPrivilege,
        "Grant the role what it lacks, as `pgembed db roles` does (then GRANT pgembed_reader, or "
        "pgembed_writer, TO …), or use --dsn with another one.",
    ),
    (psycopg.errors.UndefinedTable, "Run `pgembed migrate`; `pgembed doctor` tells what else is missing."),
    (psycopg.errors.QueryCanceled, "Raise statement_timeout for this role, or run at a quieter time."),
    (psycopg.OperationalError, "See whether the server runs, then run the same command again: it goes on."),
)


def explain(error: BaseException) -> DatabaseError | None:
    """Return what the server said as an error with a remedy; None where no remedy is known."""
    cause = getattr(error, "orig", error)  # SQLAlchemy wraps what the server says during a migration
    for kind, remedy in _REMEDIES:
        if isinstance(cause, kind):
            return DatabaseError(str(cause).strip(), remedy=remedy)
    return None
