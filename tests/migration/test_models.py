"""The models describe the schema that the migrations make."""

from typing import Any

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from pgembed.db.connection import sqlalchemy_engine
from pgembed.db.models import Base, Generation


def _differences(dsn: str, metadata: sqlalchemy.MetaData) -> list[Any]:
    with sqlalchemy_engine(dsn).connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": lambda name, kind, parents: kind != "schema" or name == "pgembed",
                "include_object": lambda item, name, kind, reflected, other: name != "alembic_version",
                "compare_type": True,
                "compare_server_default": True,
            },
        )
        return list(compare_metadata(context, metadata))


def test_autogenerate_finds_no_difference(database_url: str) -> None:
    assert _differences(database_url, Base.metadata) == []


@pytest.mark.parametrize(
    "change", ["ADD COLUMN extra text", "DROP COLUMN lists", "ALTER COLUMN onnx_path DROP NOT NULL"]
)
def test_autogenerate_would_see_a_difference(database_url: str, conn: Any, change: str) -> None:
    conn.execute(f"ALTER TABLE pgembed.{Generation.__tablename__} {change}")
    assert _differences(database_url, Base.metadata) != []
