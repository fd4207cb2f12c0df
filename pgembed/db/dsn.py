"""Connection strings: the forms they come in, which one is used, and what of them may be shown."""

import re

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgembed.config import settings
from pgembed.errors import ConfigurationError, DatabaseError

_SQLALCHEMY_SCHEME = re.compile(r"^(postgres(?:ql)?)\+\w+://")
# libpq ends the password at its first '@' and the host at its first '/': of 'me:a/b@db' it makes the host 'me' and the
# port 'a', of 'me:a@b@db' the host 'b@db', and what it makes of them is shown in messages
_UNENCODED_PASSWORD = re.compile(r"postgres(?:ql)?://[^?]*[@/][^?]*@")


def normalise(dsn: str) -> str:
    """Return `dsn` in libpq's keyword form; takes libpq's own two forms and SQLAlchemy's URLs.

    Raises:
        ConfigurationError: it is none of these.
    """
    text = _SQLALCHEMY_SCHEME.sub(r"postgresql://", dsn.strip())
    try:
        if _UNENCODED_PASSWORD.match(text):
            raise psycopg.ProgrammingError
        conninfo_to_dict(text)  # make_conninfo lets pass what is percent-encoded and no UTF-8
        return make_conninfo(text)
    except (psycopg.ProgrammingError, ValueError):  # ValueError: what UTF-8 or a C string cannot hold
        # libpq quotes the text that it could not read, which may be the password: so its message stays out.
        raise ConfigurationError(
            "The connection string cannot be read.",
            remedy="Use postgresql://user@host:5432/database or 'host=… dbname=… user=…'; "
            "put the password into ~/.pgpass or PGPASSWORD, or percent-encode it in the URL.",
        ) from psycopg.ProgrammingError("unreadable connection string (withheld: it may hold a password)")


def describe(dsn: str) -> str:
    """Return host, port, database and user of `dsn`, never its password."""
    parts = conninfo_to_dict(dsn)
    return " ".join(f"{key}={parts[key]}" for key in ("host", "port", "dbname", "user") if parts.get(key))


def resolve(dsn: str | None = None) -> str:
    """Return the connection string to use: `dsn`, else PGEMBED_DSN, else the embedded server's (started if needed).

    Raises:
        DatabaseError: `dsn` is blank, or no connection string.
    """
    if dsn is not None and not dsn.strip():
        raise DatabaseError(
            "--dsn is empty.",
            remedy="A shell variable that is not set? Leave --dsn away for PGEMBED_DSN or the embedded server.",
        )
    given = dsn or settings().dsn
    if given:
        return normalise(given)
    from pgembed.db.embedded import EmbeddedServer  # needs an extra

    return EmbeddedServer(settings().postgres_dir).start()
