"""Rows a second of vectors into Postgres: our binary COPY, the stream alone, and pgvector-python's loader.

    python benchmarks/writer.py --rows 20000 --rounds 5 [--dsn DSN]

Each round copies the same rows into an empty table of each contender, in random order; medians are printed. The floor
is the very bytes that ours writes, encoded beforehand: what is left is the server's and the connection's. pgvector's
loader is the one of its documentation: psycopg's write_row with declared types. Without --dsn it runs on a server of
its own, started for it. Other work on the machine slows the client and the server alike; the ratios hold.
"""

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psycopg
from psycopg import sql

from pgembed.db.binary_copy import HEADER, TRAILER, copy_rows, encode
from pgembed.db.connection import connect
from pgembed.db.embedded import EmbeddedServer

_TABLE = sql.Identifier("pgembed_benchmark_written")  # a table with WAL, as a generation's is
_COLUMNS = ("id", "embedding")
_COPY = "COPY pgembed_benchmark_written (id, embedding) FROM STDIN (FORMAT BINARY)"
_BATCH = 512  # rows a COPY: as reindex writes them
_DIMENSIONS = 2560


def main() -> None:
    """Print a line for each contender."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--dsn")
    arguments.add_argument("--rows", type=int, default=5000)
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()
    if options.dsn is not None:
        with connect(options.dsn, vectors=True) as conn:
            measure(conn, options.rows, options.rounds)
        return
    with tempfile.TemporaryDirectory(prefix="pgembed-benchmark-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedServer(Path(folder) / "server")
        server.start()
        try:
            with psycopg.connect(server.dsn, autocommit=True) as conn:
                conn.execute("CREATE EXTENSION IF NOT EXISTS vector")
            with connect(server.dsn, vectors=True, access="session") as conn:
                measure(conn, options.rows, options.rounds)
        finally:
            server.stop()


def measure(conn: psycopg.Connection, rows: int, rounds: int) -> None:
    """Write `rows` vectors by each contender in each round, and print the medians."""
    conn.execute(f"CREATE TABLE pgembed_benchmark_written (id bigint, embedding vector({_DIMENSIONS}))")
    vectors = np.random.default_rng(0).standard_normal((rows, _DIMENSIONS), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = np.arange(rows, dtype=np.int64)
    starts = range(0, rows, _BATCH)
    streams = [
        [HEADER, *(bytes(block) for block in encode(ids[s : s + _BATCH, np.newaxis], vectors[s : s + _BATCH])), TRAILER]
        for s in starts
    ]

    def ours() -> None:
        for start in starts:
            copy_rows(conn, _TABLE, _COLUMNS, ids[start : start + _BATCH], vectors[start : start + _BATCH])

    def floor() -> None:
        with conn.cursor() as cursor:
            for stream in streams:
                with cursor.copy(_COPY) as copy:
                    for block in stream:
                        copy.write(block)

    def pgvector() -> None:
        with conn.cursor() as cursor:
            for start in starts:
                with cursor.copy(_COPY) as copy:
                    copy.set_types(["int8", "vector"])
                    for number, vector in zip(
                        ids[start : start + _BATCH], vectors[start : start + _BATCH], strict=True
                    ):
                        copy.write_row((int(number), vector))

    contenders: dict[str, Callable[[], None]] = {
        "floor (encoded beforehand)": floor,
        "ours": ours,
        "pgvector-python": pgvector,
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    processor: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name in random.sample(list(contenders), len(contenders)):
            conn.execute("TRUNCATE pgembed_benchmark_written")
            conn.execute("CHECKPOINT")
            wall, client = time.perf_counter(), time.process_time()
            contenders[name]()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - wall)
                processor[name].append(time.process_time() - client)
    conn.execute("DROP TABLE pgembed_benchmark_written")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{rows:,} rows of {_DIMENSIONS} dimensions, {_BATCH} a COPY, {rounds} rounds; load {load}")
    best = statistics.median(seconds["floor (encoded beforehand)"])
    for name, times in seconds.items():
        median = statistics.median(times)
        per_row = 1e6 * statistics.median(processor[name]) / rows
        print(
            f"{name:<28}{rows / median:>9,.0f} rows/s {best / median:>6.0%} of the floor; client {per_row:.1f} µs a row"
        )


if __name__ == "__main__":
    main()
