"""Connection strings in every accepted form; passwords in no message."""

import pytest
from psycopg.conninfo import conninfo_to_dict

from pgembed.db.connection import connect
from pgembed.db.dsn import describe, normalise
from pgembed.errors import ConfigurationError, DatabaseError


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://me:s3cret@db:5433/app",
        "postgres://me:s3cret@db:5433/app",
        "postgresql+psycopg://me:s3cret@db:5433/app",
        "postgresql+psycopg2://me:s3cret@db:5433/app",
        "host=db port=5433 user=me password=s3cret dbname=app",
        "  postgresql://me:s3cret@db:5433/app\n",
    ],
)
def test_every_form_means_the_same(dsn: str) -> None:
    expected = {"host": "db", "port": "5433", "user": "me", "password": "s3cret", "dbname": "app"}
    assert conninfo_to_dict(normalise(dsn)) == expected
    assert "s3cret" not in describe(normalise(dsn))


def test_options_and_socket_folders_survive() -> None:
    parts = conninfo_to_dict(normalise("postgresql+psycopg://me@/app?host=/run/pg&sslmode=verify-full"))
    assert (parts["host"], parts["sslmode"]) == ("/run/pg", "verify-full")


@pytest.mark.parametrize(
    "dsn", ["mysql://me:hunter2@db/app", "postgresql://me:hunt er2@db/a b?x", "hunter2", "postgresql://hunt@db/%aa", ""]
)
def test_what_cannot_be_read_is_refused_without_its_password(dsn: str) -> None:
    if dsn == "":
        assert normalise(dsn) == ""  # libpq's own defaults
        return
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        normalise(dsn)
    assert "hunt" not in str(caught.value) + repr(caught.value.__cause__)


def test_an_unreachable_server_is_named_without_the_password() -> None:
    with pytest.raises(DatabaseError, match=r"host=127\.0\.0\.1 port=1 ") as caught:
        connect("postgresql://me:hunter2@127.0.0.1:1/app")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("blank", ["", "  \n"])
def test_a_blank_string_is_not_taken_for_another_database(blank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGEMBED_DSN", "postgresql://db/app")
    with pytest.raises(DatabaseError, match="--dsn is empty"):
        connect(blank)
