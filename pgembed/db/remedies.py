"""What the server says (connection lost, disk full, no privilege), with what to do about it."""

import psycopg
from psycopg import errors

from pgembed.errors import DatabaseError

# The first that fits. A message of the server is translated, its class is not.
_REMEDIES: tuple[tuple[type[psycopg.Error], str], ...] = (
    (errors.DiskFull, "Free space on the server's disk, then run the same command again: it goes on."),
    (
        errors.InsufficientPrivilege,
        "Grant the role what it lacks, as `pgembed db roles` does (then GRANT pgembed_reader, or "
        "pgembed_writer, TO …), or use --dsn with another one.",
    ),
    (
        errors.ReadOnlySqlTransaction,
        "The server, or this role, may only read: point --dsn or PGEMBED_DSN at one that may write.",
    ),
    (errors.UndefinedTable, "Run `pgembed migrate`; `pgembed doctor` tells what else is missing."),
    (
        errors.LockNotAvailable,
        "Another session holds it for longer than this role's lock_timeout; `pgembed status` shows the "
        "commands at work. Run the same command again: it goes on.",
    ),
    (errors.QueryCanceled, "Raise statement_timeout for this role, or run at a quieter time."),
    (
        errors.ConfigurationLimitExceeded,
        "Raise the setting that the message names, or run with less at once.",
    ),
    (errors.OutOfMemory, "Give the server more memory, or lower maintenance_work_mem or work_mem for this role."),
    (errors.TooManyConnections, "Close some, raise max_connections, or ask for fewer (--jobs, serve --connections)."),
    (psycopg.OperationalError, "See whether the server runs, then run the same command again: it goes on."),
)


def explain(error: BaseException) -> DatabaseError | None:
    """Return what the server said as an error with a remedy; None where no remedy is known."""
    cause = getattr(error, "orig", error)  # SQLAlchemy wraps what the server says during a migration
    for kind, remedy in _REMEDIES:
        if isinstance(cause, kind):
            return DatabaseError(str(cause).strip(), remedy=remedy)
    return None
