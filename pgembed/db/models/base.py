"""What all models have in common."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Identity, MetaData, Text, func, text
from sqlalchemy.dialects.postgresql import BYTEA, JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgembed.db.migrations import SCHEMA


class Base(DeclarativeBase):
    """Base of all models; `Base.metadata` describes schema pgembed."""

    metadata = MetaData(schema=SCHEMA)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as a plain class attribute
        str: Text,
        bytes: BYTEA,
        datetime: TIMESTAMP(timezone=True),
        dict[str, Any]: JSONB,
    }


class Identified:
    """A table whose rows the server numbers."""

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True, sort_order=-1)


def now() -> Any:
    """Return a column that holds the time of the insert."""
    return mapped_column(server_default=func.now())


def empty_json() -> Any:
    """Return a column that holds {} until it is told otherwise."""
    return mapped_column(server_default=text("'{}'::jsonb"))


def empty_text() -> Any:
    """Return a column that holds an empty text until it is told otherwise."""
    return mapped_column(server_default=text("''::text"))


def zero() -> Any:
    """Return a bigint column that holds 0 until it is told otherwise."""
    return mapped_column(BigInteger, server_default=text("0"))
