"""The group roles of `sql/roles.sql`: the least that a reader and a writer need."""

import psycopg

from pgembed.db.sql import query, resource_text
from pgembed.errors import DatabaseError

ROLES = {
    "pgembed_reader": "searches and reads",
    "pgembed_writer": "ingests, mines, trains and evaluates as well",
}


def apply_roles(conn: psycopg.Connection) -> dict[str, list[str]]:
    """Make the roles where they are missing and grant them what they need; return the members of each.

    Raises:
        DatabaseError: this role may not do that.
    """
    try:
        with conn.transaction():
            conn.execute(resource_text("roles.sql").encode())
    except psycopg.errors.InsufficientPrivilege as error:
        raise DatabaseError(
            f"This role may not make or grant the roles: {str(error).strip()}",
            remedy="Run it as the owner of schema pgembed; where that one has no CREATEROLE, an administrator first "
            "runs CREATE ROLE pgembed_reader NOLOGIN; CREATE ROLE pgembed_writer NOLOGIN;",
        ) from error
    rows = conn.execute(query("role_members"), {"roles": list(ROLES)}).fetchall()
    return {role: [member for name, member in rows if name == role] for role in ROLES}
