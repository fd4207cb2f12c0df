"""The models at work: the active generation's is kept warm, and another is followed when the pointer moves.

An answer comes from one generation, named from its query's embedding to the search: two models are never mixed. While a
newly activated one's model is being loaded, the one before it answers; after that no request asks the old one any more.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg

from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.encoders.spec import Role
from pgembed.errors import SearchError
from pgembed.serving.batching import Batcher, Batching, Vector
from pgembed.serving.failures import Busy, NotReady
from pgembed.serving.metrics import Metrics
from pgembed.vectors.generations import Generation
from pgembed.vectors.search import encoder_of, searchable

_KEPT = 3
"""Models in memory: the active one, the one before it, one that is compared with."""
_RETRY_S = 5.0
"""A model that could not be loaded is tried again after this."""
_EMBED_TIMEOUT_S = 60.0


class Warm:
    """A loaded encoder, as a search wants one: texts of several requests run together."""

    def __init__(self, encoder: OnnxEncoder, batching: Batching, metrics: Metrics) -> None:
        self.manifest = encoder.manifest
        self._encoder = encoder
        self._metrics = metrics
        self._batcher = (
            Batcher(lambda texts: encoder.embed_each(texts, role="query"), batching, metrics.embedded)
            if batching.most > 1
            else None
        )

    @property
    def waiting(self) -> int:
        """Texts that wait now."""
        return 0 if self._batcher is None else self._batcher.waiting

    def embed(self, texts: list[str], *, role: Role) -> Vector:
        """Return (N, 2560) float32, L2-normalised.

        Raises:
            EncoderError: a text has no usable vector. Busy: too many wait.
        """
        if self._batcher is None or role != "query":
            started = time.perf_counter()
            found = self._encoder.embed(texts, role=role)
            self._metrics.embedded(len(texts), time.perf_counter() - started)
            return found
        futures = [self._batcher.submit(text) for text in texts]
        try:
            return np.stack([future.result(_EMBED_TIMEOUT_S) for future in futures])
        except TimeoutError as error:
            raise Busy(f"The text was not embedded within {_EMBED_TIMEOUT_S:g} s.", remedy="Ask again soon.") from error

    def close(self) -> None:
        """Finish what waits, and end."""
        if self._batcher is not None:
            self._batcher.close()


@dataclass
class _Entry:
    loaded: "Future[Warm]" = field(default_factory=Future)
    users: int = 0
    used_at: float = 0.0
    failed_at: float | None = None


class Models:
    """Loaded encoders by the graph they hold; several generations of one graph share it."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        provider: str = "cpu",
        threads: int | None = None,
        batching: Batching | None = None,
    ) -> None:
        self._metrics = metrics
        self._provider = provider
        self._threads = threads
        self._batching = batching or Batching()
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._last: int | None = None
        metrics.watch_queue(lambda: sum(warm.waiting for warm in self._loaded()))

    def answering(self, conn: psycopg.Connection[Any]) -> Generation:
        """Return the generation that answers where none is named; loads its model in the background if need be.

        Raises:
            NotReady: no generation is active, or it cannot be searched.
        """
        active = named(conn, None)
        entry = self._entry(active)
        last = self._last
        if not entry.loaded.done() and last is not None and last != active.id:
            try:
                return searchable(conn, last)
            except SearchError:
                pass  # it is gone: the new one is waited for
        self._last = active.id
        self._metrics.answers_from(active.id)
        return active

    @contextmanager
    def of(self, generation: Generation) -> Iterator[Warm]:
        """Lend the generation's encoder; waits while it is being loaded.

        Raises:
            NotReady: it is not on this machine, or is another one by now. EncoderError: it is damaged.
        """
        entry = self._entry(generation, users=1)
        try:
            try:
                warm = entry.loaded.result()
            except SearchError as error:
                raise NotReady(error.message, remedy=error.remedy) from error
            yield warm
        finally:
            with self._lock:
                entry.users -= 1
            self._make_room()

    def state(self, generation: Generation) -> str:
        """Return what a person should know of the generation's model: warm, loading, cold, or why it is not there."""
        with self._lock:
            entry = self._entries.get(_key(generation))
        if entry is None:
            return "cold"
        if not entry.loaded.done():
            return "loading"
        error = entry.loaded.exception()
        return "warm" if error is None else str(error)

    def close(self) -> None:
        """Finish what waits, and let the models go."""
        for warm in self._loaded():
            warm.close()

    def _entry(self, generation: Generation, *, users: int = 0) -> _Entry:
        """Return the entry of a generation's model, with so many users more, and see to it that it is being loaded."""
        with self._lock:
            entry = self._entries.get(_key(generation))
            known = entry is not None and (entry.failed_at is None or time.monotonic() - entry.failed_at < _RETRY_S)
            if entry is None or not known:
                entry = self._entries[_key(generation)] = _Entry()
            entry.users += users
            entry.used_at = time.monotonic()
            if known:
                return entry
        threading.Thread(target=self._load, args=(generation, entry), name="pgembed-load", daemon=True).start()
        return entry

    def _load(self, generation: Generation, entry: _Entry) -> None:
        try:
            encoder = encoder_of(generation, provider=self._provider, threads=self._threads)
            # the first run allocates: it is not a request's
            encoder.embed(["warm"], role="query")
            entry.used_at = time.monotonic()
            entry.loaded.set_result(Warm(encoder, self._batching, self._metrics))
        except Exception as error:  # noqa: BLE001 - it is handed to every request that wants this model
            entry.failed_at = time.monotonic()
            entry.loaded.set_exception(error)

    def _make_room(self) -> None:
        """Let go of the models that were not used for longest and that nobody uses now."""
        with self._lock:
            idle = [
                key
                for key, entry in sorted(self._entries.items(), key=lambda item: item[1].used_at)
                if entry.users == 0 and entry.loaded.done()
            ]
            doomed = [self._entries.pop(key) for key in idle[: max(0, len(self._entries) - _KEPT)]]
        for entry in doomed:
            if entry.loaded.exception() is None:
                entry.loaded.result().close()

    def _loaded(self) -> list[Warm]:
        with self._lock:
            entries = list(self._entries.values())
        return [e.loaded.result() for e in entries if e.loaded.done() and e.loaded.exception() is None]


def named(conn: psycopg.Connection[Any], generation_id: int | None) -> Generation:
    """Return the generation of this number, or the active one. Raises NotReady where it cannot be searched."""
    try:
        return searchable(conn, generation_id)
    except SearchError as error:
        raise NotReady(error.message, remedy=error.remedy) from error


def _key(generation: Generation) -> tuple[str, str]:
    return generation.onnx_path, generation.onnx_sha256
