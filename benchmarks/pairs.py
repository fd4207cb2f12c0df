"""All pairs of look-alike functions: ours on the server beside what people use on the client, in one run.

    python benchmarks/pairs.py --sizes 5000 20000 --thresholds 0.5 0.7 --jobs 1 2

Needs: pip install SetSimilaritySearch rensa datasketch. Works in a database of its own on the server of --dsn, which it
drops at the end. A client's time holds the fetch of the token sets; what it misses is its recall. LSH candidates are
verified exactly, as a user would have to. Preparation is counted in ours, and shown apart. The embedded server writes
its WAL and syncs it, as a user's would.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

import psycopg
from functions import Function, cached_functions, load
from psycopg.conninfo import make_conninfo
from server_cost import ServerCost

from pgembed.db.connection import connect
from pgembed.db.dsn import resolve
from pgembed.db.migrations import upgrade
from pgembed.mining import pairs as mining
from pgembed.mining.pairs import find_pairs

Pairs = set[tuple[int, int]]
Sets = dict[int, list[int]]
_PERMUTATIONS = 128


def fetch(conn: psycopg.Connection) -> Sets:
    """Bring the token sets to the client."""
    return dict(conn.execute("SELECT id, token_ids FROM pgembed.code_chunks WHERE token_count > 0").fetchall())


def set_similarity_search(sets: Sets, threshold: float) -> Pairs:
    """Exact, in Python."""
    from SetSimilaritySearch import all_pairs

    ids = list(sets)
    found = all_pairs(list(sets.values()), similarity_func_name="jaccard", similarity_threshold=threshold)
    return {(min(ids[i], ids[j]), max(ids[i], ids[j])) for i, j, _ in found}


def rensa_lsh(sets: Sets, threshold: float) -> Pairs:
    """MinHash LSH in Rust, verified."""
    from rensa import RMinHash, RMinHashLSH

    index = RMinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS, num_bands=_bands(threshold))
    hashes = {}
    for key, members in sets.items():
        value = RMinHash(num_perm=_PERMUTATIONS, seed=42)
        value.update([str(member) for member in members])
        index.insert(key, value)
        hashes[key] = value
    return _verified(sets, ((key, index.query(value)) for key, value in hashes.items()), threshold)


def datasketch_lsh(sets: Sets, threshold: float) -> Pairs:
    """MinHash LSH in NumPy, verified."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS)
    encoded = ([str(member).encode() for member in members] for members in sets.values())
    hashes = dict(zip(sets, MinHash.generator(encoded, num_perm=_PERMUTATIONS), strict=True))
    with index.insertion_session() as session:
        for key, value in hashes.items():
            session.insert(key, value, check_duplication=False)
    return _verified(sets, ((key, index.query(value)) for key, value in hashes.items()), threshold)


def _bands(threshold: float) -> int:
    """Return the bands b of r rows, b·r = permutations, whose turning point (1/b)^(1/r) is nearest to the threshold.

    Source: Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", section 3.4.2.
    """
    divisors = [b for b in range(1, _PERMUTATIONS + 1) if _PERMUTATIONS % b == 0]
    return min(divisors, key=lambda b: abs((1 / b) ** (b / _PERMUTATIONS) - threshold))


def _verified(sets: Sets, neighbours: Iterable[tuple[int, Iterable[int]]], threshold: float) -> Pairs:
    members = {key: frozenset(tokens) for key, tokens in sets.items()}
    found = set()
    for a, others in neighbours:
        for b in others:
            if a < b:
                common = len(members[a] & members[b])
                if 1000 * common >= round(threshold * 1000) * (len(members[a]) + len(members[b]) - common):
                    found.add((a, b))
    return found


PEERS: dict[str, Callable[[Sets, float], Pairs]] = {
    "SetSimilaritySearch": set_similarity_search,
    "rensa": rensa_lsh,
    "datasketch": datasketch_lsh,
}


def ours(conn: psycopg.Connection, threshold: float, jobs: int, *, approximate: bool = False) -> tuple[float, float]:
    """Run everything from nothing; return seconds of the whole, and of the preparation in it."""
    prepared = 0.0
    mining._ESTIMATED_FROM = sys.maxsize  # the estimate before a long run is not part of it
    original = mining._Run._prepare

    def timed(self: mining._Run, new: int, ids: tuple[int, int], *, queued: bool) -> None:
        nonlocal prepared
        began = time.perf_counter()
        original(self, new, ids, queued=queued)
        prepared += time.perf_counter() - began

    mining._Run._prepare = timed  # type: ignore[method-assign]
    try:
        began = time.perf_counter()
        find_pairs(conn, min_jaccard=threshold, jobs=jobs, full=True, approximate=approximate)
        return time.perf_counter() - began, prepared
    finally:
        mining._Run._prepare = original  # type: ignore[method-assign]


def incremental(conn: psycopg.Connection, threshold: float, share: float, jobs: int) -> tuple[int, float]:
    """Take a share of the chunks out, pair the rest, add them anew; return how many and the seconds for their pairs."""
    columns = "sha256, language, kind, symbol, content, docstring, body, token_ids, line_count"
    conn.execute(
        """CREATE TEMPORARY TABLE taken AS
           SELECT * FROM pgembed.code_chunks ORDER BY sha256
            LIMIT (SELECT round(%s * count(*)) FROM pgembed.code_chunks)""",
        (share,),
    )
    conn.execute("DELETE FROM pgembed.code_chunks WHERE id IN (SELECT id FROM taken)")
    find_pairs(conn, min_jaccard=threshold, full=True)
    conn.execute(
        f"""INSERT INTO pgembed.code_chunks (id, {columns}) OVERRIDING SYSTEM VALUE
            SELECT id + (SELECT max(id) FROM pgembed.code_chunks), {columns} FROM taken"""
    )
    conn.execute("DROP TABLE taken")
    began = time.perf_counter()
    report = find_pairs(conn, min_jaccard=threshold, jobs=jobs)
    return report.chunks, time.perf_counter() - began


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--dsn", help="server to work on; default: the embedded one")
    arguments.add_argument("--sizes", type=int, nargs="+", default=[5_000])
    arguments.add_argument("--thresholds", type=float, nargs="+", default=[0.7])
    arguments.add_argument("--jobs", type=int, nargs="+", default=[1])
    arguments.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    arguments.add_argument("--approximate", action="store_true", help="our approximate path as well")
    arguments.add_argument("--cache", type=Path, help="file that keeps the functions for the next run")
    options = arguments.parse_args()
    functions = cached_functions(options.cache, max(options.sizes))
    base = resolve(options.dsn)
    name = f"pgembed_benchmark_{os.getpid()}"
    with connect(base, access="session") as server:
        row = server.execute(
            "SELECT version(), (SELECT default_version FROM pg_available_extensions WHERE name = 'vector')"
        )
        print(*(row.fetchone() or ()), sep="; pgvector ")
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()};", end=" ")
        print(", ".join(f"{peer} {version(peer)}" for peer in options.peers))
        for size in options.sizes:
            server.execute(f"CREATE DATABASE {name}")
            try:
                _measure(make_conninfo(base, dbname=name), functions[:size], options)
            finally:
                server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _measure(dsn: str, functions: list[Function], options: argparse.Namespace) -> None:
    upgrade(dsn)
    with connect(dsn, access="session") as conn:
        load(conn, functions)
        print(
            f"\n{'sets':>8} {'t':>5} {'method':<30} {'seconds':>8} {'of it preparation':>18} {'pairs':>9} {'recall':>7}"
            f" {'ratio':>6}"
        )
        for threshold in options.thresholds:
            best, exact = float("inf"), set()
            for jobs in options.jobs:
                with ServerCost(dsn) as cost:
                    seconds, prepared = ours(conn, threshold, jobs)
                best = min(best, seconds)
                exact = set(conn.execute("SELECT chunk_a, chunk_b FROM pgembed.candidate_pairs").fetchall())
                _line(
                    len(functions), threshold, f"pgembed, {jobs} jobs", seconds, f"{prepared:.2f}", exact, exact, best
                )
                print(f"{'':>14} {cost}")
            if options.approximate:
                seconds, prepared = ours(conn, threshold, max(options.jobs), approximate=True)
                found = set(conn.execute("SELECT chunk_a, chunk_b FROM pgembed.candidate_pairs").fetchall())
                method = f"pgembed --approximate, {max(options.jobs)} jobs"
                _line(len(functions), threshold, method, seconds, f"{prepared:.2f}", found, exact, best)
            for peer in options.peers:
                began = time.perf_counter()
                sets = fetch(conn)
                fetched = time.perf_counter() - began
                found = PEERS[peer](sets, threshold)
                seconds = time.perf_counter() - began
                _line(len(functions), threshold, peer, seconds, f"fetch {fetched:.2f}", found, exact, best)
            chunks, seconds = incremental(conn, threshold, 0.01, max(options.jobs))
            print(
                f"{len(functions):>8,} {threshold:>5} pgembed, {chunks:,} new chunks: {seconds:.2f} s, "
                f"{seconds / best:.1%} of all"
            )


def _line(
    size: int, threshold: float, method: str, seconds: float, part: str, found: Pairs, exact: Pairs, best: float
) -> None:
    recall = len(found & exact) / max(len(exact), 1)
    wrong = f"  {len(found - exact)} not ours" if found - exact else ""
    print(
        f"{size:>8,} {threshold:>5} {method:<30} {seconds:>8.2f} {part:>18} {len(found):>9,} {recall:>7.3f} "
        f"{seconds / best:>6.1f}{wrong}",
        flush=True,
    )


if __name__ == "__main__":
    main()
