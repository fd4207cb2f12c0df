"""What a database must have before it can carry pgembed's schema."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg

from pgembed.db.sql import query

MINIMUM_SERVER = (15, "NULLS NOT DISTINCT")
MINIMUM_PGVECTOR = (0, 8, 0)  # iterative index scans; halfvec and sparsevec came with 0.7


@dataclass(frozen=True)
class Problem:
    """Something the database lacks, and what to do about it."""

    what: str
    remedy: str
    fix: Callable[[psycopg.Connection], object] | None = field(default=None, compare=False)
    """Does what the remedy says, where that is safe at any time."""


def preflight(connection: psycopg.Connection) -> list[Problem]:
    """Return what stands in the way of pgembed's schema on this server; empty when nothing does."""
    row = connection.execute(query("preflight")).fetchone()
    assert row is not None  # noqa: S101 - an aggregate-free SELECT without FROM gives one row
    server_version, installed, available, can_create_extension, can_create_schema, has_schema, is_replica = row
    problems = []
    major = server_version // 10000
    if major < MINIMUM_SERVER[0]:
        problems.append(
            Problem(
                f"PostgreSQL {major} is too old: pgembed needs {MINIMUM_SERVER[0]} ({MINIMUM_SERVER[1]}).",
                "Upgrade the server, or let pgembed use its embedded one (leave --dsn and PGEMBED_DSN unset).",
            )
        )
    if is_replica:
        problems.append(Problem("The server is a read-only replica.", "Point --dsn at the primary."))
    wanted = ".".join(map(str, MINIMUM_PGVECTOR))
    version = installed or available
    if version is None:
        problems.append(
            Problem(
                "pgvector is not available on the server.",
                "Install it there (Debian: postgresql-NN-pgvector; managed servers: allow the extension vector).",
            )
        )
    elif tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < MINIMUM_PGVECTOR:
        update = (
            "ALTER EXTENSION vector UPDATE"
            if installed and available and available != installed
            else "Upgrade pgvector"
        )
        problems.append(Problem(f"pgvector {version} is too old: pgembed needs {wanted}.", f"{update} on the server."))
    elif not installed and not can_create_extension:
        problems.append(
            Problem(
                "The extension vector is not in this database and this role may not create it.",
                "As a superuser, or as the administrator of a managed server: CREATE EXTENSION vector;",
            )
        )
    if not has_schema and not can_create_schema:
        problems.append(
            Problem(
                "This role may not create the schema pgembed.",
                "As the database's owner: GRANT CREATE ON DATABASE … TO …, or CREATE SCHEMA pgembed AUTHORIZATION …;",
            )
        )
    return problems
