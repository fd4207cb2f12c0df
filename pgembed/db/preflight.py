"""What a database must have before it can carry pgembed's schema."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg

from pgembed.db import objects
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
    warning: bool = False
    """Nothing fails for it now: a person should know of it, and `doctor` ends with 0 all the same."""


def preflight(connection: psycopg.Connection) -> list[Problem]:
    """Return what stands in the way of pgembed's schema on this server; empty when nothing does."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":  # none of the rest is worth doing in this database
        return [
            Problem(
                f"The database's encoding is {encoding}: pgembed needs UTF8, since code is kept as it is written.",
                "Make another database for it, since an encoding cannot be changed: "
                "CREATE DATABASE … ENCODING 'UTF8' LOCALE 'C.UTF-8' TEMPLATE template0;",
            )
        ]
    row = connection.execute(query("preflight")).fetchone()
    assert row is not None  # noqa: S101 - an aggregate-free SELECT without FROM gives one row
    server_version, installed, available, can_create_extension, has_place_for_extension, closed_to, role, is_replica = (
        row
    )
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
    elif not installed and not has_place_for_extension:
        problems.append(
            Problem(
                "The extension vector is not in this database, and no schema on the search_path could hold it.",
                "CREATE EXTENSION vector SCHEMA …; or make the schema public: CREATE SCHEMA public;",
            )
        )
    if closed_to is not None:
        problems.append(
            Problem(
                f"The extension vector stands in the schema {closed_to}, which this role may not use.",
                f"As that schema's owner: GRANT USAGE ON SCHEMA {closed_to} TO {role};",
            )
        )
    return problems + _schema(connection)


def _schema(connection: psycopg.Connection) -> list[Problem]:
    """Return what stands against schema pgembed itself: it cannot be made or used, or it is another's."""
    row = connection.execute(query("preflight_schema")).fetchone()
    assert row is not None  # noqa: S101 - as above
    role, database, can_create_schema, owner, may_use, has_version_table, has_chunks = row
    if owner is None:
        if can_create_schema:
            return []
        return [
            Problem(
                "This role may not create the schema pgembed.",
                f"As the database's owner: GRANT CREATE ON DATABASE {database} TO {role}; "
                f"or CREATE SCHEMA pgembed AUTHORIZATION {role};",
            )
        ]
    if has_version_table and has_chunks:
        return []
    standing = [one for one in objects.standing(connection) if not one.is_pgvector]
    if may_use and objects.current_revision(connection) is None:  # what a migration that was undone leaves for a moment
        standing = [one for one in standing if one.name != "pgembed.alembic_version"]
    if standing:
        return [
            Problem(
                f"The schema pgembed holds what is not pgembed's: {objects.listed(standing)}.",
                "Give it another name (ALTER SCHEMA pgembed RENAME TO …), move what stands there to another schema, or "
                "use another database.",
            )
        ]
    if not may_use:
        return [
            Problem(
                f"The schema pgembed is {owner}'s, and this role may not create anything in it.",
                f"As {owner}: ALTER SCHEMA pgembed OWNER TO {role}; "
                f"or GRANT USAGE, CREATE ON SCHEMA pgembed TO {role} WITH GRANT OPTION;",
            )
        ]
    return []
