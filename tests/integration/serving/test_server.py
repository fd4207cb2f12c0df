"""The server as a process: how it starts, ends, loses its database and follows the active generation."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2
import onnxruntime
import psycopg
import pytest
from fixtures_cli import pgembed
from fixtures_serving import Running, Served, wait_until

from pgembed.db.embedded import EmbeddedServer
from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.vectors.generations import activate
from pgembed.vectors.reindex import reindex
from pgembed.vectors.search import search

Start = Callable[..., AbstractContextManager[Running]]
TOKEN = "a-token-of-some-length"  # noqa: S105 - of these tests


def test_it_refuses_to_be_open_to_others(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGEMBED_TOKEN", raising=False)
    outcome = pgembed("serve", "--host", "0.0.0.0", "--port", "0", "--dsn", database_url)  # noqa: S104
    assert outcome.code == 1
    assert "no token" in outcome.stderr
    (tmp_path / "token").write_text("\n")
    outcome = pgembed("serve", "--token-file", str(tmp_path / "token"), "--dsn", database_url)
    assert (outcome.code, "is empty" in outcome.stderr) == (1, True)


def test_a_port_that_is_taken_is_an_error_with_a_remedy(running: Running, served: Served) -> None:
    outcome = pgembed("serve", "--port", running.url.rsplit(":", 1)[1], "--dsn", served.url)
    assert outcome.code == 1
    assert "--port" in outcome.stderr


def test_it_works_without_torch(running: Running) -> None:
    with running.client() as client:
        assert client.get("/api/search", params={"q": "waa"}).json()["generation"] is not None
    loaded = Path(f"/proc/{running.process.pid}/maps").read_text()
    assert "onnxruntime" in loaded
    assert "torch" not in loaded


def test_a_provider_that_is_not_there_is_said_before_the_first_request(served: Served) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime is built with CUDA")
    outcome = pgembed("serve", "--port", "0", "--provider", "cuda", "--dsn", served.url)
    assert outcome.code == 1
    assert "built without CUDAExecutionProvider" in outcome.stderr


def test_it_needs_a_schema(empty_database_url: str) -> None:
    outcome = pgembed("serve", "--port", "0", "--dsn", empty_database_url)
    assert (outcome.code, "pgembed migrate" in outcome.stderr) == (1, True)


def test_open_to_others_it_asks_for_the_token(start: Start, served: Served) -> None:
    with start("--dsn", served.url, "--host", "0.0.0.0", PGEMBED_TOKEN=TOKEN) as running:  # noqa: S104
        with running.client() as anyone, running.client(authorization=f"Bearer {TOKEN}") as friend:
            assert anyone.get("/api/status").status_code == 401
            assert anyone.get("/api/status", headers={"host": "any.example"}).status_code == 401
            assert friend.get("/api/status").status_code == 200
        assert running.stop() == 0
        assert TOKEN not in "".join(running.output)


def test_what_was_accepted_is_answered_when_it_is_told_to_stop(
    start: Start, served: Served, server_conninfo: str
) -> None:
    """All requests wait for a lock on the table that they read; it is let go after the signal."""
    with start("--dsn", served.url, "--connections", "3") as running:
        with running.client() as client:
            assert client.get("/readyz").status_code == 200
        answers: list[httpx2.Response] = []

        def ask(n: int) -> None:
            with running.client() as client:
                answers.append(client.get("/api/search", params={"q": f"waa number {n}", "k": 3}))

        with psycopg.connect(served.url) as holder, psycopg.connect(served.url, autocommit=True) as looker:
            holder.execute("LOCK TABLE pgembed.chunk_locations IN ACCESS EXCLUSIVE MODE")
            threads = [threading.Thread(target=ask, args=(n,)) for n in range(3)]
            for thread in threads:
                thread.start()
            waiting = """SELECT count(*) FROM pg_locks
                          WHERE NOT granted AND relation = 'pgembed.chunk_locations'::regclass"""
            wait_until(lambda: looker.execute(waiting).fetchone() == (3,))
            running.process.terminate()
            with pytest.raises(httpx2.ConnectError):
                wait_until(lambda: httpx2.get(f"{running.url}/healthz").status_code != 200, 10)
            assert running.process.poll() is None  # it waits for them
            assert answers == []
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert running.process.wait(30) == 0
        wait_until(lambda: "what was accepted is answered" in "".join(running.output), 10)


def test_while_the_database_is_away_it_says_so_and_recovers(start: Start, own_server: EmbeddedServer) -> None:
    with start("--dsn", own_server.dsn) as running, running.client() as client:
        assert client.get("/api/status").status_code == 200
        own_server.stop()
        wait_until(lambda: client.get("/api/status").status_code == 503, 10)  # it is kept for a second
        answer = client.get("/api/search", params={"q": "x", "mode": "lexical"})
        assert (answer.status_code, answer.json()["error"]) == (503, "DatabaseError")
        assert "Cannot connect" in answer.json()["message"]
        assert "--dsn or PGEMBED_DSN" in answer.json()["remedy"]
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        own_server.start()
        wait_until(lambda: client.get("/api/status").status_code == 200, 20)
        assert running.stop() == 0


def test_each_answer_is_of_one_generation_while_another_is_activated(
    start: Start, searchable: psycopg.Connection, database_url: str, tiny_encoder: Path, other_encoder: Path
) -> None:
    """Several ask without a pause while the pointer goes there and back: each answer equals that of one generation."""
    old = int(str(searchable.execute("SELECT generation_id FROM pgembed.active_generation").fetchone()[0]))  # type: ignore[index]
    new = reindex(database_url, other_encoder).generation_id
    texts = ["open a socket", "read a line", "close the file"]
    wanted: dict[tuple[str, int], list[tuple[int, float]]] = {
        (text, generation): [
            (hit.chunk_id, pytest.approx(hit.score, abs=1e-4))
            for hit in search(searchable, encoder, text, mode="vector", generation_id=generation)
        ]
        for generation, encoder in ((old, OnnxEncoder.load(tiny_encoder)), (new, OnnxEncoder.load(other_encoder)))
        for text in texts
    }
    assert all(wanted[text, old] != wanted[text, new] for text in texts)
    done = threading.Event()

    def ask(running: Running, n: int) -> list[tuple[str, dict[str, Any]]]:
        found = []
        with running.client() as client:
            while not done.is_set():
                text = texts[(n + len(found)) % 3]
                answer = client.get("/api/search", params={"q": text, "mode": "vector"})
                assert answer.status_code == 200, answer.text
                found.append((text, answer.json()))
        return found

    with start("--dsn", database_url) as running, ThreadPoolExecutor(4) as pool, running.client() as client:

        def answering() -> int:
            return int(client.get("/api/search", params={"q": "open", "mode": "vector"}).json()["generation"]["id"])

        futures = [pool.submit(ask, running, n) for n in range(4)]
        try:
            wait_until(lambda: answering() == old)
            for generation in (new, old, new):
                activate(searchable, generation, force=True)
                wait_until(lambda to=generation: answering() == to)  # type: ignore[misc]
        finally:
            done.set()
        answers = [answer for future in futures for answer in future.result()]
        assert running.stop() == 0
    by_generation = dict.fromkeys((old, new), 0)
    for text, answer in answers:
        generation = answer["generation"]["id"]
        by_generation[generation] += 1
        assert [(hit["chunk_id"], hit["score"]) for hit in answer["hits"]] == wanted[text, generation]
    assert all(by_generation.values()), by_generation
