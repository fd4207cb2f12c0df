"""Triplets over many functions: the time to make them, to look at a hundred, and the memory to stream all of them.

    python benchmarks/triplets.py --sizes 20000 100000

Works in a database of its own on the server of --dsn, which it drops at the end. The stream is the one that training
reads; memory is this process's, as the operating system counts it.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from functions import cached_functions, load
from psycopg.conninfo import make_conninfo
from server_cost import ServerCost

from pgembed.db.connection import connect
from pgembed.db.dsn import resolve
from pgembed.db.migrations import upgrade
from pgembed.mining.pairs import find_pairs
from pgembed.mining.triplets import refresh_triplets
from pgembed.training.data import batches, snapshot, summarise
from pgembed.training.options import TrainingOptions

_LOOKS = 21


def main() -> None:
    """Print the figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--dsn", help="server to work on; default: the embedded one")
    arguments.add_argument("--sizes", type=int, nargs="+", default=[20_000])
    arguments.add_argument("--cache", type=Path, help="file that keeps the functions for the next run")
    arguments.add_argument("--stream", metavar="DSN", help="only read the triplets of this database, and say how")
    options = arguments.parse_args()
    if options.stream:
        stream(options.stream)
        return
    functions = cached_functions(options.cache, max(options.sizes))
    base = resolve(options.dsn)
    name = f"pgembed_benchmark_{os.getpid()}"
    with connect(base, access="session") as server:
        print(*(server.execute("SELECT version()").fetchone() or ()))
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
        for size in options.sizes:
            server.execute(f"CREATE DATABASE {name}")
            try:
                dsn = make_conninfo(base, dbname=name)
                upgrade(dsn)
                with connect(dsn, access="session") as conn:
                    load(conn, functions[:size])
                _measure(dsn, size)
            finally:
                server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _measure(dsn: str, size: int) -> None:
    with connect(dsn, access="session") as conn:
        pairs = find_pairs(conn, min_jaccard=0.5)
        began = time.perf_counter()
        with ServerCost(dsn) as cost:
            triplets = refresh_triplets(conn)
        print(f"\n{size:,} functions, {pairs.pairs:,} pairs at 0.5: {triplets:,} triplets", end=" ")
        print(f"in {time.perf_counter() - began:.1f} s ({cost})")
        looks = []
        for _ in range(_LOOKS):
            began = time.perf_counter()
            conn.execute("SELECT * FROM pgembed.triplets LIMIT 100").fetchall()
            looks.append(time.perf_counter() - began)
        print(
            f"  SELECT * FROM pgembed.triplets LIMIT 100: {statistics.median(looks) * 1000:.1f} ms (median of {_LOOKS})"
        )
    sys.stdout.flush()
    subprocess.run([sys.executable, __file__, "--stream", dsn], check=True)


def stream(dsn: str) -> None:
    """Read all triplets as training does, and print the rate and the memory; in a process that holds nothing else."""
    options = TrainingOptions(kind=None, batch=1000)
    with connect(dsn, access="session") as conn, snapshot(conn) as reader:
        data = summarise(reader, options)
        began, seen = time.perf_counter(), 0
        marks: list[str] = []
        for batch in batches(reader, options, data, first_step=0):
            seen += len(batch)
            if len(marks) < 10 * seen // data.triplets:
                marks.append(f"{_peak_memory_mb():.0f}")
            if seen >= data.triplets:
                break
        seconds = time.perf_counter() - began
    print(
        f"  streaming {seen:,} for training: {seen / seconds:,.0f} a second; peak memory of the process in MB", end=" "
    )
    print(f"after each tenth: {' '.join(marks)}")


def _peak_memory_mb() -> float:
    # not getrusage: a new process begins with the peak of the one that started it
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
