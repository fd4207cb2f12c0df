"""Queries that come together run together, and each has its own outcome."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from pgembed.encoders.batching import Embedded
from pgembed.errors import EncoderError
from pgembed.serving.batching import Batcher, Batching
from pgembed.serving.failures import Busy


class Gate:
    """An engine that holds its first run until it is opened, and notes what ran together."""

    def __init__(self) -> None:
        self.runs: list[list[str]] = []
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, texts: Sequence[str]) -> Embedded:
        self.runs.append(list(texts))
        self.entered.set()
        assert self.opened.wait(10)
        if "engine" in texts:
            raise EncoderError("The engine fails on everything.")
        vectors = np.array([[float(len(text)), 1.0] for text in texts], dtype=np.float32)
        bad = [n for n, text in enumerate(texts) if text.startswith("bad")]
        vectors[bad] = np.nan
        return Embedded(vectors, dict.fromkeys(bad, "it is bad"), [])


@pytest.fixture
def gate() -> Gate:
    return Gate()


def held(gate: Gate, batching: Batching) -> Batcher:
    """Return a batcher whose engine is at work on the text 'first'."""
    batcher = Batcher(gate, batching)
    batcher.submit("first")
    assert gate.entered.wait(10)
    return batcher


def test_what_waits_runs_together_up_to_the_most(gate: Gate) -> None:
    batcher = held(gate, Batching(most=3))
    futures = [batcher.submit("x" * n) for n in range(1, 6)]
    gate.opened.set()
    assert [future.result(10)[0] for future in futures] == [1, 2, 3, 4, 5]
    assert [len(run) for run in gate.runs] == [1, 3, 2]
    batcher.close()


def test_each_caller_has_its_own_error(gate: Gate) -> None:
    batcher = held(gate, Batching())
    good, bad, other = (batcher.submit(text) for text in ("good", "bad text", "other"))
    gate.opened.set()
    assert good.result(10)[0] == 4
    assert other.result(10)[0] == 5
    with pytest.raises(EncoderError, match="it is bad"):
        bad.result(10)
    assert gate.runs[1] == ["good", "bad text", "other"]
    batcher.close()


def test_an_engine_that_fails_tells_everyone_and_goes_on(gate: Gate) -> None:
    batcher = held(gate, Batching())
    futures = [batcher.submit(text) for text in ("one", "engine")]
    gate.opened.set()
    for future in futures:
        with pytest.raises(EncoderError, match="on everything"):
            future.result(10)
    assert batcher.submit("later").result(10)[0] == 5
    batcher.close()


def test_a_full_queue_refuses(gate: Gate) -> None:
    batcher = held(gate, Batching(waiting=2))
    futures = [batcher.submit("a"), batcher.submit("b")]
    assert batcher.waiting == 2
    with pytest.raises(Busy, match="2 queries wait"):
        batcher.submit("c")
    gate.opened.set()
    assert all(future.result(10) is not None for future in futures)
    batcher.close()


def test_closing_finishes_what_waits(gate: Gate) -> None:
    batcher = held(gate, Batching(most=2))
    futures = [batcher.submit("x" * n) for n in range(1, 6)]
    threading.Timer(0.1, gate.opened.set).start()
    batcher.close()
    assert all(future.done() for future in futures)
