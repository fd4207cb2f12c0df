"""What stands in schema pgembed: pgembed's own objects, and others'.

Ours is what `sql/schema.sql` names, Alembic's version table, and the tables of generations; whatever else stands there
is somebody else's, and is neither changed nor dropped.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import psycopg

from pgembed.db.sql import query, resource_text
from pgembed.errors import DatabaseError

_MOST = 10  # objects that are named one by one
_MADE = re.compile(
    r"^-- Name: (?P<name>.*); Type: (?:TABLE|VIEW|SEQUENCE|TYPE|FUNCTION); Schema: pgembed;", re.MULTILINE
)
_OF_A_GENERATION = re.compile(r"pgembed\.code_embeddings_\d+$")


@dataclass(frozen=True, order=True)
class StoredObject:
    """An object of the database: its kind as PostgreSQL calls it, and its whole name."""

    kind: str
    name: str
    catalogue: int
    """The OID of the catalogue that holds it, such as pg_class."""
    oid: int

    @property
    def is_ours(self) -> bool:
        """Whether pgembed made it (`sql/schema.sql`: as of this version)."""
        return self.name in _ours() or (self.kind == "table" and _OF_A_GENERATION.match(self.name) is not None)

    @property
    def is_pgvector(self) -> bool:
        """Whether it is the extension, which an administrator may have put into this schema too."""
        return (self.kind, self.name) == ("extension", "vector")

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def current_revision(conn: psycopg.Connection) -> str | None:
    """Return the revision that the schema stands at; None where there is no version table, or nothing in it.

    Raises:
        DatabaseError: this role may not read it.
    """
    try:
        row = conn.execute(query("schema_revision")).fetchone()
    except psycopg.errors.InsufficientPrivilege as error:
        found = conn.execute(query("pgembed_owner")).fetchone()
        owner, _, role = found or ("the owner", False, conn.info.user)
        raise DatabaseError(
            f"The role {role} may not read the schema pgembed.",
            remedy=f"As {owner}: `pgembed db roles`, then GRANT pgembed_reader TO {role}; (to write: pgembed_writer).",
        ) from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.InvalidSchemaName):
        return None
    return None if row is None else str(row[0])


def standing(conn: psycopg.Connection) -> list[StoredObject]:
    """Return the objects that stand in schema pgembed, by kind and name; none where there is no such schema.

    What belongs to a table (indexes, row types, sequences of its columns) goes with it, and members of an extension
    with that.
    """
    return sorted(StoredObject(*row) for row in conn.execute(query("schema_objects")))


def others(conn: psycopg.Connection) -> list[StoredObject]:
    """Return the objects in schema pgembed that are neither pgembed's nor pgvector."""
    return [found for found in standing(conn) if not found.is_ours and not found.is_pgvector]


def dependents(conn: psycopg.Connection) -> list[str]:
    """Return what is not pgembed's and could not stand without what is: views, foreign keys, functions, partitions."""
    ours = [found for found in standing(conn) if found.is_ours]
    parameters = {"catalogues": [one.catalogue for one in ours], "oids": [one.oid for one in ours]}
    return [f"{kind} {name}" for kind, name in conn.execute(query("dependent_objects"), parameters)]


def listed(names: Iterable[object]) -> str:
    """Return the first names as a list for a message, and how many more there are."""
    found = [str(name) for name in names]
    more = f", and {len(found) - _MOST:,} more" if len(found) > _MOST else ""
    return ", ".join(found[:_MOST]) + more


@cache
def _ours() -> frozenset[str]:
    made = (match["name"].replace(", ", ",") for match in _MADE.finditer(resource_text("schema.sql")))
    return frozenset(f"pgembed.{name}" for name in made) | {"pgembed.alembic_version"}
