import psycopg


def test_schema_is_there(conn: psycopg.Connection) -> None:
    assert conn.execute("SELECT count(*) FROM pgembed.code_chunks").fetchone() == (0,)


def test_each_test_has_a_database_of_its_own(conn: psycopg.Connection, empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url) as other:
        assert other.execute("SELECT to_regnamespace('pgembed')").fetchone() == (None,)
