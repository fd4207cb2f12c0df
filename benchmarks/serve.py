"""Requests a second and latency of `pgembed serve`: 1, 8 and 32 clients, with and without batching, side by side.

    python benchmarks/serve.py --dsn 'dbname=code' --seconds 10

The database is one that a search can be asked in; queries are the first lines of its docstrings. Each client asks again
as soon as it is answered. The clients share the machine with the server, and the database if it is there as well.
"""

import argparse
import itertools
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from importlib.metadata import version
from urllib.parse import urlencode

import numpy as np
from queries import active_generation, docstring_lines

from pgembed.db.connection import connect
from pgembed.db.dsn import resolve


@contextmanager
def served(dsn: str, *options: str) -> Iterator[int]:
    """Run the server; give its port once its model answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pgembed", "serve", "--port", "0", "--dsn", dsn, *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        found = re.search(r":(\d+)/", process.stderr.readline())
        assert found, process.stderr.read()
        port = int(found[1])
        assert ask(HTTPConnection("127.0.0.1", port), "warm up", "hybrid") > 0
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        process.stderr.close()


def ask(connection: HTTPConnection, text: str, mode: str) -> float:
    """Ask one query; return the seconds it took."""
    started = time.perf_counter()
    connection.request("GET", f"/api/search?{urlencode({'q': text, 'mode': mode, 'k': 10})}")
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, body
    return time.perf_counter() - started


def load(port: int, texts: list[str], clients: int, seconds: float, mode: str) -> list[float]:
    """Return the seconds of each request that `clients` made in `seconds`."""
    took: list[float] = []
    end = time.monotonic() + seconds

    def client(n: int) -> None:
        connection = HTTPConnection("127.0.0.1", port)
        for text in itertools.islice(itertools.cycle(texts), n * 7, None):
            if time.monotonic() > end:
                return
            took.append(ask(connection, text, mode))

    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took


def mean_batch(port: int) -> tuple[float, float]:
    """Return the queries that were embedded so far, and the runs of the model."""
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    total, runs = (re.search(rf"^pgembed_batch_size_{name} (\S+)", text, re.MULTILINE) for name in ("sum", "count"))
    return (float(total[1]), float(runs[1])) if total and runs else (0.0, 0.0)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsn")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--mode", default="vector", choices=["vector", "lexical", "hybrid"])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    given = parser.parse_args()
    dsn = resolve(given.dsn)
    with connect(dsn, access="session") as conn:
        texts = docstring_lines(conn, 500)
        name, chunks, index, server, pgvector = active_generation(conn)
    print(
        f"{chunks:,} chunks, {name}, {index}, mode {given.mode}; {len(os.sched_getaffinity(0))} processors; "
        f"PostgreSQL {server}, pgvector {pgvector}, Python {platform.python_version()}, "
        + ", ".join(f"{package} {version(package)}" for package in ("fastapi", "uvicorn", "onnxruntime"))
    )
    print(f"{'clients':>8} {'batching':>9} {'requests/s':>11} {'p50 ms':>8} {'p99 ms':>8} {'texts a run':>12}")
    for clients in given.clients:
        for label, options in (("off", ("--batch", "1")), ("on", ())):
            with served(dsn, *options) as port:
                load(port, texts, clients, 1, given.mode)
                texts_before, runs_before = mean_batch(port)
                took = load(port, texts, clients, given.seconds, given.mode)
                texts_after, runs_after = mean_batch(port)
            p50, p99 = np.percentile(took, [50, 99]) * 1000
            size = (texts_after - texts_before) / max(1.0, runs_after - runs_before)
            print(
                f"{clients:>8} {label:>9} {len(took) / given.seconds:>11.1f} {p50:>8.1f} {p99:>8.1f} {size:>12.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
