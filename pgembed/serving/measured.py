"""The middleware that counts requests, and refuses what is more than can be worked on."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pgembed.serving.failures import failure
from pgembed.serving.metrics import Metrics


class Measured:
    """Counts and times each request. At most `most` of /api are at work at once: the next is told to come again."""

    def __init__(self, app: ASGIApp, metrics: Metrics, most: int) -> None:
        self._app = app
        self._metrics = metrics
        self._most = most
        self._working = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        counted = scope["path"].startswith("/api/")
        if counted and self._working >= self._most:
            self._metrics.refused()
            busy = failure(503, "Busy", f"{self._most} requests are being answered.", "Ask again soon.")
            await busy(scope, receive, send)
            return
        self._working += counted
        self._metrics.in_flight(1)
        try:
            await self._app(scope, receive, noting)
        finally:
            self._working -= counted
            self._metrics.in_flight(-1)
            # the route's pattern: were it the path itself, every chunk would be a series of its own
            route = getattr(scope.get("route"), "path", None) or ("static" if "/static" in scope["path"] else "other")
            self._metrics.answered(scope["method"], route, status, time.perf_counter() - started)
