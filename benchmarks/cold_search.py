"""Seconds of `pgembed search` from the shell: a process of its own for each query, by each mode, in random order.

    python benchmarks/cold_search.py --dsn 'dbname=code' --rounds 15
    sudo python benchmarks/cold_search.py --dsn 'dbname=code' --rounds 5 --drop-caches

Nothing is warm but the database and the system's cache of files; --drop-caches empties that one before each query
(Linux, root; it slows down everything on the machine for a while). `starting` is `pgembed --version`: Python and the
command line alone. Modules are those that a search has imported when it ends.
"""

import argparse
import itertools
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from queries import active_generation, docstring_lines

from pgembed.db.connection import connect
from pgembed.db.dsn import resolve

_MODES = ("hybrid", "vector", "lexical")
_HEAVY = ("torch", "transformers", "onnxruntime", "tokenizers", "sqlalchemy", "alembic", "numpy")


def command(mode: str, text: str, dsn: str) -> list[str]:
    """Return the arguments of pgembed for one measured run."""
    return ["--version"] if mode == "starting" else ["search", "--mode", mode, "--json", "--dsn", dsn, "--", text]


def run(arguments: list[str], *python: str) -> "tuple[float, subprocess.CompletedProcess[str]]":
    """Run pgembed; return the seconds and what it printed."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *python, "-m", "pgembed", *arguments], capture_output=True, text=True, check=True
    )
    return time.perf_counter() - started, done


def imported(arguments: list[str]) -> list[str]:
    """Return which of the heavy packages a run imports."""
    _, done = run(arguments, "-X", "importtime")
    modules = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    return [name for name in _HEAVY if name in modules]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsn")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--drop-caches", action="store_true")
    given = parser.parse_args()
    dsn = resolve(given.dsn)
    with connect(dsn, access="session") as conn:
        texts = docstring_lines(conn, 500)
        name, chunks, index, server, pgvector = active_generation(conn)
    print(
        f"{chunks:,} chunks, {name}, {index}; {len(os.sched_getaffinity(0))} processors; PostgreSQL {server}, "
        f"pgvector {pgvector}, Python {platform.python_version()}, onnxruntime {version('onnxruntime')}"
    )
    taken: dict[str, list[float]] = {mode: [] for mode in ("starting", *_MODES)}
    for mode in taken:
        run(command(mode, "warm up", dsn))  # compiled modules, the system's cache of files
    for text in itertools.islice(itertools.cycle(texts), given.rounds):
        for mode in random.sample(list(taken), len(taken)):
            if given.drop_caches:
                os.sync()
                Path("/proc/sys/vm/drop_caches").write_text("3")
            taken[mode].append(run(command(mode, text, dsn))[0])
    print(f"{'':<9} {'median s':>9} {'slowest s':>10}  imports, of {', '.join(_HEAVY)}")
    for mode, seconds in taken.items():
        names = ", ".join(imported(command(mode, texts[0], dsn))) or "none"
        print(f"{mode:<9} {statistics.median(seconds):>9.2f} {max(seconds):>10.2f}  {names}", flush=True)


if __name__ == "__main__":
    main()
