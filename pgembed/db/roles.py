"""The group roles of `sql/roles.sql`: the least that a reader and a writer need."""

from collections.abc import Iterable

import psycopg

from pgembed.db.sql import query, resource_text
from pgembed.errors import DatabaseError

ROLES = {
    "pgembed_reader": "searches and reads",
    "pgembed_writer": "ingests, mines, trains and evaluates as well",
}
_ROLES = {"roles": list(ROLES)}


def apply_roles(conn: psycopg.Connection) -> dict[str, list[str]]:
    """Make the roles where they are missing and grant them what they need; return the members of each.

    Raises:
        DatabaseError: this role may not do that.
    """
    found = conn.execute(query("pgembed_owner")).fetchone()
    if found is not None and not found[1]:  # GRANT by another would be a warning, and do nothing
        owner, _, role = found
        raise DatabaseError(
            f"The role {role} may not grant anything in the schema pgembed: its tables are {owner}'s.",
            remedy=f"Run it as {owner}.",
        )
    try:
        with conn.transaction():
            conn.execute(resource_text("roles.sql").encode())
            shut_out = [role for (role,) in conn.execute(query("roles_shut_out"), _ROLES)]
    except psycopg.errors.InsufficientPrivilege as error:
        raise _refused(conn, error) from error
    if shut_out:
        row = conn.execute(query("schema_owner")).fetchone()
        owner = "its owner" if row is None else row[0]
        raise DatabaseError(
            f"This role may not let others into the schema pgembed, which is {owner}'s.",
            remedy=f"As {owner}: GRANT USAGE ON SCHEMA pgembed TO {', '.join(shut_out)};",
        )
    rows = conn.execute(query("role_members"), _ROLES).fetchall()
    return {role: [member for name, member in rows if name == role] for role in ROLES}


def not_to_give(conn: psycopg.Connection) -> list[str]:
    """Return those of the roles that this one may not grant to others."""
    return [role for (role,) in conn.execute(query("roles_not_to_give"), _ROLES)]


def admin_option(conn: psycopg.Connection, roles: Iterable[str]) -> str:
    """Return the statement by which an administrator lets this role grant `roles` to others."""
    row = conn.execute(query("this_role")).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM gives one row
    return f"GRANT {', '.join(roles)} TO {row[0]} WITH ADMIN OPTION;"


def _refused(conn: psycopg.Connection, error: psycopg.Error) -> DatabaseError:
    missing = [role for (role,) in conn.execute(query("roles_missing"), _ROLES)]
    if not missing:
        return DatabaseError(f"The roles cannot be granted what they need: {error.diag.message_primary}.")
    return DatabaseError(
        f"This role may not make the roles {' and '.join(missing)}: it has no CREATEROLE.",
        remedy=f"As an administrator: {' '.join(f'CREATE ROLE {role} NOLOGIN;' for role in missing)} "
        f"{admin_option(conn, ROLES)} Then run it again.",
    )
