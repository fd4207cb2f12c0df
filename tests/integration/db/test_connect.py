"""pgvector's types on a connection, wherever an administrator has put the extension."""

import numpy as np
import psycopg
import pytest

from pgembed.db.connection import connect
from pgembed.errors import DatabaseError


@pytest.mark.parametrize("schema", ["public", "Odd Extensions", "pgembed"])
def test_arrays_are_sent_as_vectors_wherever_the_extension_is(empty_database_url: str, schema: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as admin:
        admin.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        admin.execute(f'CREATE EXTENSION vector SCHEMA "{schema}"')
    with connect(empty_database_url, vectors=True) as connection:
        sent = np.array([1.5, -2.0, 0.25], dtype=np.float32)
        distance = f'%s OPERATOR("{schema}".<->) %s'
        row = connection.execute(f"SELECT (%s)::text, {distance}", (sent, sent, np.zeros(3, np.float32))).fetchone()
        assert row == ("[1.5,-2,0.25]", pytest.approx(np.linalg.norm(sent)))


def test_the_search_path_of_the_session_is_left_as_it_is(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as admin:
        admin.execute("CREATE SCHEMA elsewhere")
        admin.execute("CREATE EXTENSION vector SCHEMA elsewhere")
        admin.execute(f"ALTER DATABASE {admin.info.dbname} SET search_path = 'Mine', public")
    with connect(empty_database_url, vectors=True) as connection:
        assert connection.execute("SHOW search_path").fetchone() == ('"Mine", public',)


def test_a_database_without_the_extension_is_sent_to_migrate(empty_database_url: str) -> None:
    with pytest.raises(DatabaseError, match="has no extension vector") as caught:
        connect(empty_database_url, vectors=True)
    assert caught.value.remedy == "Run `pgembed migrate`."
