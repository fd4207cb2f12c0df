"""Queries that come at the same time are embedded together: one run of the model instead of one for each."""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgembed.encoders.batching import Embedded
from pgembed.encoders.onnx_encoder import invalid_rows
from pgembed.errors import EncoderError
from pgembed.serving.failures import Busy

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Batching:
    """How queries are put together."""

    most: int = 32
    """Texts a run; 1: each query runs by itself."""
    wait_s: float = 0.002
    """How long a batch that is not full waits for more, where others were asked at the same time."""
    waiting: int = 256
    """Texts that may wait; more are refused."""


class Batcher:
    """One thread that embeds what has come together. `embed` gives each text its vector or its error."""

    def __init__(
        self,
        embed: Callable[[list[str]], Embedded],
        batching: Batching,
        observe: Callable[[int, float], None] = lambda _size, _seconds: None,
    ) -> None:
        self._embed = embed
        self._batching = batching
        self._observe = observe
        self._queue: queue.Queue[tuple[str, Future[Vector]] | None] = queue.Queue(batching.waiting)
        self._thread = threading.Thread(target=self._work, name="pgembed-embed", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Texts that wait now."""
        return self._queue.qsize()

    def submit(self, text: str) -> "Future[Vector]":
        """Return what will hold the vector (2560,) of `text`, or the error of this text alone.

        Raises:
            Busy: too many texts wait already.
        """
        future: Future[Vector] = Future()
        try:
            self._queue.put_nowait((text, future))
        except queue.Full as error:
            raise Busy(f"{self._batching.waiting} queries wait to be embedded.", remedy="Ask again soon.") from error
        return future

    def close(self) -> None:
        """Finish what waits, and end."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        others = False
        while (first := self._queue.get()) is not None:
            batch, ended = self._collect(first, wait=others)
            # alone, a query pays nothing for batching: only where the last run had company is more waited for
            others = len(batch) > 1
            self._run(batch)
            if ended:
                return

    def _collect(
        self, first: tuple[str, "Future[Vector]"], *, wait: bool
    ) -> tuple[list[tuple[str, "Future[Vector]"]], bool]:
        """Return what runs together, and whether nothing comes after it."""
        batch = [first]
        until = time.monotonic() + self._batching.wait_s
        while len(batch) < self._batching.most:
            try:
                left = until - time.monotonic()
                following = self._queue.get(timeout=left) if wait and left > 0 else self._queue.get_nowait()
            except queue.Empty:
                break
            if following is None:
                return batch, True
            batch.append(following)
        return batch, False

    def _run(self, batch: list[tuple[str, "Future[Vector]"]]) -> None:
        started = time.perf_counter()
        try:
            found = self._embed([text for text, _ in batch])
        except Exception as error:  # noqa: BLE001 - it is handed to everyone who waits
            for _, future in batch:
                with suppress(InvalidStateError):
                    future.set_exception(error)
            return
        self._observe(len(batch), time.perf_counter() - started)
        unusable = set(invalid_rows(found.vectors))
        for position, (_, future) in enumerate(batch):
            with suppress(InvalidStateError):
                if position in unusable:
                    why = found.errors.get(position, "NaN, infinite or zero")
                    future.set_exception(EncoderError(f"The encoder gave no usable vector for this text ({why})."))
                else:
                    future.set_result(found.vectors[position])
