"""A database with all that the page shows: hostile code, triplets, two generations, a training run, an evaluation."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psycopg
import pytest
from fastapi.testclient import TestClient
from fixtures_chunks import Chunk, add_chunks
from fixtures_encoders import make_tiny_model
from fixtures_serving import HOSTILE, MARKUP, Running, Served, serving, wait_until
from fixtures_triplets import corpus
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgembed.corpus.lexicon import complete_lexicon
from pgembed.db.connection import connect
from pgembed.db.embedded import EmbeddedServer
from pgembed.db.migrations import upgrade
from pgembed.db.sql import query
from pgembed.mining.pairs import find_pairs
from pgembed.mining.triplets import refresh_triplets
from pgembed.serving.app import make_app
from pgembed.vectors.generations import activate
from pgembed.vectors.reindex import reindex


@pytest.fixture(scope="session")
def other_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of other weights than `tiny_encoder`, exported."""
    from pgembed.training.export import export_encoder

    folder = tmp_path_factory.mktemp("other")
    return export_encoder(make_tiny_model(folder / "model", seed=5), folder / "artefact").path


@pytest.fixture(scope="session")
def server_conninfo(embedded_server: EmbeddedServer) -> str:
    return make_conninfo(host=str(embedded_server.socket_dir), user="postgres")


@pytest.fixture(scope="session")
def served(server_conninfo: str, tiny_encoder: Path, other_encoder: Path) -> Iterator[Served]:
    """A whole database. Who changes something in it puts it back."""
    url = make_conninfo(server_conninfo, dbname="served")
    drop = sql.SQL("DROP DATABASE IF EXISTS served WITH (FORCE)")
    with psycopg.connect(server_conninfo, dbname="postgres", autocommit=True) as maintenance:
        maintenance.execute(drop)
        maintenance.execute("CREATE DATABASE served")
        upgrade(url)
        hostile = Chunk(
            frozenset(["hostile", "escape", "admin", "enormous", "user"]),
            body=HOSTILE,
            docstring="Do harm to whoever.",
            path=f"src/{MARKUP}\u202e.py",
        )
        with connect(url, vectors=True) as conn:
            ids = add_chunks(conn, [*corpus(count=120), hostile])
            conn.execute("UPDATE pgembed.code_chunks SET symbol = 'f' || id")
            conn.execute("UPDATE pgembed.code_chunks SET symbol = %s WHERE id = %s", (MARKUP, ids[hostile.sha256]))
            with conn.transaction():
                complete_lexicon(conn)
                conn.execute(query("refresh_lexical_statistics"))
            find_pairs(conn, min_jaccard=0.4)
            refresh_triplets(conn)
            generations = [reindex(url, encoder).generation_id for encoder in (other_encoder, tiny_encoder)]
            activate(conn, generations[1], force=True)
            run = _add_measurements(conn)
        yield Served(url, (generations[0], generations[1]), ids[hostile.sha256], run)
        maintenance.execute(drop)


def _add_measurements(conn: psycopg.Connection) -> int:
    row = conn.execute(
        """INSERT INTO pgembed.training_runs (state, view, seed, hyperparameters, data_fingerprint, base_encoder_id,
                                              package_version)
           SELECT 'finished', 'triplets', 0, '{"steps": 3000}', 'x', min(id), '0' FROM pgembed.encoders RETURNING id"""
    ).fetchone()
    assert row is not None
    conn.execute(
        """INSERT INTO pgembed.training_metrics (run_id, step, loss, gradient_norm, learning_rate, zero_loss_share,
                                                 triplets_per_second)
           SELECT %s, n, CASE WHEN n = 3000 THEN 'NaN' ELSE 1.0 / n END, 1, 1e-5, 0, 50
             FROM generate_series(1, 3000) n""",
        (row[0],),
    )
    conn.execute(
        """INSERT INTO pgembed.evaluations (encoder_id, dataset, fingerprint, documents, queries, settings, metrics,
                                            per_query)
           SELECT min(id), 'held-out', 'x', 100, 20, '{}',
                  '{"ndcg@10": {"mean": 0.7, "low": 0.6, "high": 0.8}}', '{}' FROM pgembed.encoders"""
    )
    return int(row[0])


@pytest.fixture(scope="session")
def client(served: Served) -> Iterator[TestClient]:
    """Requests to an application on `served`, without a network."""
    with TestClient(make_app(served.url), base_url="http://127.0.0.1") as client:
        wait_until(lambda: client.get("/api/status").json()["model"] == "warm")
        yield client


@pytest.fixture
def start() -> Callable[..., AbstractContextManager[Running]]:
    """A function that runs `pgembed serve`: see `serving`."""
    return serving


@pytest.fixture(scope="session")
def running(served: Served) -> Iterator[Running]:
    """A server on `served`, for the tests that leave it as it is."""
    with serving("--dsn", served.url) as found:
        with found.client() as client:
            wait_until(lambda: client.get("/api/status").json()["model"] == "warm")
        yield found
        assert found.stop() == 0


@pytest.fixture
def searchable(conn: psycopg.Connection, database_url: str, tiny_encoder: Path) -> psycopg.Connection:
    """The test's connection, to a database of its own: six chunks with an active generation."""
    words = ["open", "socket", "read", "line", "close", "file"]
    add_chunks(conn, [Chunk(frozenset(words[n:]), body=f"def f{n}():\n    return {words[n:]}") for n in range(6)])
    reindex(database_url, tiny_encoder, activate=True)
    return conn


@pytest.fixture
def own_server(embedded_server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """A small Postgres of the test's own, to be stopped and started; migrated."""
    # beside the shared server's data: pytest's own folders are closed to the server's user when root runs the tests
    folder = embedded_server.data_dir.parent / "own"
    folder.mkdir(mode=0o755, exist_ok=True)
    server = EmbeddedServer(folder / "data", settings={"fsync": "off"})
    upgrade(server.start())
    yield server
    server.stop()
