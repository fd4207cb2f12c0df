"""A real Postgres with pgvector for every test: the embedded server's binaries, cloned from a migrated template."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pytest_postgresql import factories

from pgembed.db.connection import connect
from pgembed.db.embedded import ROLE, EmbeddedServer
from pgembed.db.migrations import upgrade

pytest_plugins = ["fixtures_encoders", "fixtures_hybrid", "fixtures_towers", "fixtures_plugins"]

# Never the developer's own database or server, and never a model hub.
os.environ.pop("PGEMBED_DSN", None)
os.environ["HF_HUB_OFFLINE"] = "1"
# As pgembed.training has it, but tests import torch before that: threads that spin while they wait made a tiny model 50
# times slower where other processes were at work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_SERVER = pytest.StashKey[EmbeddedServer]()
_FOLDER = pytest.StashKey["tempfile.TemporaryDirectory[str]"]()


def pytest_configure(config: pytest.Config) -> None:
    folder = tempfile.TemporaryDirectory(prefix="pgembed-tests-", ignore_cleanup_errors=True)
    Path(folder.name).chmod(0o755)  # as root the server runs as another user, which must be able to pass
    os.environ["PGEMBED_HOME"] = str(Path(folder.name) / "home")
    # a crash of the machine may cost a test database; a crash of the server may not, so only fsync is off
    server = EmbeddedServer(Path(folder.name) / "server", settings={"fsync": "off", "full_page_writes": "off"})
    server.start()
    config.stash[_FOLDER], config.stash[_SERVER] = folder, server
    config.option.postgresql_host = str(server.socket_dir)
    config.option.postgresql_user = ROLE


def pytest_unconfigure(config: pytest.Config) -> None:
    if _SERVER in config.stash:
        config.stash[_SERVER].stop()
        config.stash[_FOLDER].cleanup()


def _migrate(*, host: str, port: int, user: str, dbname: str, **_: object) -> None:
    upgrade(make_conninfo(host=host, port=port, user=user, dbname=dbname))


server_process = factories.postgresql_noproc(load=[_migrate], dbname="migrated")
empty_process = factories.postgresql_noproc(dbname="empty")
_migrated = factories.postgresql("server_process")
_empty = factories.postgresql("empty_process")


def _dsn(connection: psycopg.Connection) -> str:
    info = connection.info
    return make_conninfo(host=info.host, port=info.port, user=info.user, dbname=info.dbname)


@pytest.fixture(scope="session")
def embedded_server(request: pytest.FixtureRequest) -> EmbeddedServer:
    """The server that all tests share."""
    return request.config.stash[_SERVER]


@pytest.fixture
def database_url(_migrated: psycopg.Connection) -> str:
    """Connection string of a fresh, migrated database."""
    return _dsn(_migrated)


@pytest.fixture
def empty_database_url(_empty: psycopg.Connection) -> str:
    """Connection string of a fresh database without pgembed's schema."""
    return _dsn(_empty)


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection]:
    """An autocommitting connection to a fresh, migrated database, with pgvector's types."""
    with connect(database_url, vectors=True, access="session") as connection:
        yield connection
