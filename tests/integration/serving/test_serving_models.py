"""Models at work: one that is not there, several generations at once, and a role that may only read."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from fastapi.testclient import TestClient
from fixtures_cli import pgembed
from fixtures_serving import Served, wait_until
from psycopg.conninfo import make_conninfo

from pgembed.serving import models
from pgembed.serving.app import make_app
from pgembed.serving.metrics import Metrics
from pgembed.vectors.generations import get_generation
from pgembed.vectors.reindex import reindex


@pytest.fixture
def reader(searchable: psycopg.Connection, database_url: str) -> Iterator[TestClient]:
    """Requests to an application whose role may only read."""
    assert pgembed("db", "roles", "--dsn", database_url).code == 0
    app = make_app(make_conninfo(database_url, options="-c role=pgembed_reader"))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def test_a_model_that_is_gone_is_said_and_used_when_it_is_back(
    conn: psycopg.Connection, searchable: psycopg.Connection, database_url: str, other_encoder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(models, "_RETRY_S", 0.0)
    artefact = tmp_path / "artefact"
    shutil.copytree(other_encoder, artefact)
    generation = reindex(database_url, artefact).generation_id
    artefact.rename(tmp_path / "elsewhere")
    asked = {"q": "open a socket", "generation": generation}
    with TestClient(make_app(database_url), base_url="http://127.0.0.1") as client:
        gone = client.get("/api/search", params=asked)
        assert (gone.status_code, gone.json()["error"]) == (409, "NotReady")
        assert "is not on this machine" in gone.json()["message"]
        assert "pgembed export" in gone.json()["remedy"]
        assert client.get("/api/search", params={"q": "open"}).status_code == 200  # the active one's is there
        (tmp_path / "elsewhere").rename(artefact)
        assert client.get("/api/search", params=asked).json()["generation"]["id"] == generation


def test_models_come_and_go_while_they_are_asked(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for one model, two generations are asked at once: each text gets the vector of the model it asked."""
    monkeypatch.setattr(models, "_KEPT", 1)
    at_work = models.Models(Metrics())
    with psycopg.connect(served.url) as conn:
        generations = [get_generation(conn, number) for number in served.generations]
    wanted = []
    for generation in generations:
        with at_work.of(generation) as warm:
            wanted.append(warm.embed(["a text"], role="query")[0])
    assert float(wanted[0] @ wanted[1]) < 0.99

    def ask(n: int) -> float:
        with at_work.of(generations[n % 2]) as warm:
            return float(warm.embed(["a text"], role="query")[0] @ wanted[n % 2])

    with ThreadPoolExecutor(6) as pool:
        cosines = list(pool.map(ask, range(60)))
    assert min(cosines) > 0.9999
    wait_until(lambda: sum(at_work.state(generation) == "warm" for generation in generations) == 1, 10)
    at_work.close()


def test_a_reader_looks_and_marks_nothing(reader: TestClient, searchable: psycopg.Connection) -> None:
    for path in ("status", "search?q=open", "explain?q=open", "triplets", "generations", "training", "evaluations"):
        assert reader.get(f"/api/{path}").status_code == 200, path
    searchable.execute(
        """INSERT INTO pgembed.triplet_candidates (ordinal, kind, split, anchor_id, positive_id, negative_id,
                                                   positive_jaccard, negative_jaccard, rule)
           SELECT 1, 'code', 'train', min(id), min(id) + 1, max(id), 0.5, 0.1, 'x' FROM pgembed.code_chunks"""
    )
    refused = reader.post("/api/triplets/1/block", json={"reason": "x"}, headers={"X-Pgembed": "1"})
    assert refused.status_code == 403
    assert "permission denied" in refused.json()["message"]
    assert "pgembed db roles" in refused.json()["remedy"]
