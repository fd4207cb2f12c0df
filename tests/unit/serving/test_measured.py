"""Requests are counted, and one too many is told to come again."""

import anyio
import pytest
from starlette.types import Message, Receive, Scope, Send

from pgembed.serving.measured import Measured
from pgembed.serving.metrics import Metrics


@pytest.mark.parametrize(("path", "status"), [("/api/search", 503), ("/healthz", 200)])
def test_one_more_than_can_be_worked_on_is_refused(path: str, status: int) -> None:
    metrics = Metrics()
    opened, entered = anyio.Event(), []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["query_string"] == b"wait":
            entered.append(scope)
            await opened.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    measured = Measured(app, metrics, most=2)

    async def ask(path: str, query: bytes = b"") -> int:
        said: list[int] = []

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                said.append(message["status"])

        async def receive() -> Message:
            return {"type": "http.request"}

        await measured({"type": "http", "method": "GET", "path": path, "query_string": query}, receive, send)
        return said[0]

    async def run() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(ask, "/api/search", b"wait")
            while len(entered) < 2:
                await anyio.sleep(0)
            assert await ask(path) == status
            opened.set()
        assert await ask(path) == 200

    anyio.run(run)
    text = metrics.text({}).decode()
    assert f"pgembed_refused_total {float(status == 503)}" in text
    assert "pgembed_requests_in_flight 0.0" in text
