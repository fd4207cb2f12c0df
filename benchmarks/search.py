"""Search by vectors through SQL beside FAISS: recall@10 against exact search, and milliseconds, with as many lists.

    python benchmarks/search.py --encode V.npy --artefact DIR [--functions 100000] [--cache FILE]
    python benchmarks/search.py --vectors V.npy [--functions 20000 50000 100000] [--cache FILE] [--json FILE]

The first embeds real functions once and goes on where it was interrupted. The second fills a database on a server of
its own for each size, searches it through `pgembed.nearest` by each index method, and FAISS in this process (pip
install faiss-cpu). One query at a time, warm. FAISS holds what the server holds, 2,560 dimensions, in single precision;
and, shown apart, only those that the encoder fills: there a seventh of the work is left.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psycopg
from encoded import Encoded, encode, read_encoded
from functions import Function, cached_functions, load
from psycopg import sql

from pgembed.db.binary_copy import copy_rows, generation_keys
from pgembed.db.connection import connect
from pgembed.db.embedded import EmbeddedServer
from pgembed.db.migrations import upgrade
from pgembed.db.sql import query
from pgembed.progress import SILENT
from pgembed.vectors import table
from pgembed.vectors.comparing import efforts_for
from pgembed.vectors.index import DIMENSIONS, allow_memory, build_bytes, index_name, lists_for

Floats = npt.NDArray[np.float32]
Search = Callable[[Floats], npt.NDArray[np.float32]]
"""One query, (D,) → the scores of its ten hits."""

_K = 10
_EQUAL_SCORES = 1e-6
_TARGETS = (0.90, 0.95, 0.98)
_GENERATION = 1


@dataclass(frozen=True)
class Point:
    """One engine at one effort."""

    engine: str
    effort: int
    recall: float
    p50_ms: float
    p95_ms: float


def measure(engine: str, effort: int, search: Search, queries: Floats, tenth: Floats) -> Point:
    """Search for each of `queries`, after twenty that are not timed; `tenth` holds the exact tenth scores."""
    for vector in queries[:20]:
        search(vector)
    found, milliseconds = 0, []
    for vector, least in zip(queries, tenth, strict=True):
        started = time.perf_counter()
        scores = search(vector)
        milliseconds.append((time.perf_counter() - started) * 1000)
        found += int((np.asarray(scores) >= least - _EQUAL_SCORES).sum())
    p50, p95 = np.percentile(milliseconds, [50, 95])
    point = Point(engine, effort, found / (_K * len(queries)), float(p50), float(p95))
    print(f"  {engine:24s} {effort:5d}  {point.recall:.3f}  {p50:8.2f}  {p95:8.2f}", flush=True)
    return point


def curve(efforts: list[int], measure_at: Callable[[int], Point]) -> list[Point]:
    """Measure at `efforts` until nothing is missed, then at the least that reach each target, to within a sixteenth."""
    measured: dict[int, Point] = {}

    def recall(effort: int) -> float:
        if effort not in measured:
            measured[effort] = measure_at(effort)
        return measured[effort].recall

    for effort in efforts:
        if recall(effort) >= 0.998:
            break
    for target in _TARGETS:
        high = min((e for e in measured if recall(e) >= target), default=None)
        low = max((e for e in measured if recall(e) < target), default=None)
        while high is not None and low is not None and high - low > max(1, high // 16):
            middle = (low + high) // 2
            low, high = (low, middle) if recall(middle) >= target else (middle, high)
    return [measured[effort] for effort in sorted(measured)]


def through_sql(conn: psycopg.Connection, encoded: Encoded, queries: Floats, tenth: Floats) -> list[Point]:
    """Fill one generation and search it by each method in turn, at each effort, set where a search reads it."""
    rows = len(encoded.functions)
    lists = lists_for(rows)
    started = time.perf_counter()
    fill(conn, encoded)
    print(f"  {rows:,} vectors written in {time.perf_counter() - started:.0f} s")
    points = [measure("exact, SQL", rows, _sql(conn, exact=True), queries[:20], tenth[:20])]
    for method in ("ivfflat", "hnsw", "binary"):
        # beside a graph stands a single list, as in every generation
        build(conn, "ivfflat", rows, lists if method == "ivfflat" else 1)
        if method != "ivfflat":
            build(conn, method, rows, 1)
        conn.execute(
            "UPDATE pgembed.generations SET index_method = %s, lists = %s WHERE id = %s",
            (method, lists if method == "ivfflat" else 1, _GENERATION),
        )
        points += curve(efforts_for(method, lists, _K), at(conn, method, queries, tenth))
        if method != "ivfflat":
            conn.execute(sql.SQL(query("drop_index")).format(index=_identifier(method)))
    return points


def at(conn: psycopg.Connection, method: str, queries: Floats, tenth: Floats) -> Callable[[int], Point]:
    """Return what measures a method at an effort; it is checked that the index answers."""

    def effort_of(effort: int) -> Point:
        conn.execute("UPDATE pgembed.generations SET probes = %s WHERE id = %s", (effort, _GENERATION))
        plan = conn.execute("SELECT * FROM pgembed.search_plan(%b, 10, generation => %s)", (queries[0], _GENERATION))
        by_index = any(index_name(_GENERATION, method) in line for (line,) in plan)
        # beside a graph the single list, an exact scan, may be what the planner takes at the most effort
        return measure(f"{method}, SQL" if by_index else f"{method} left out, SQL", effort, _sql(conn), queries, tenth)

    return effort_of


def fill(conn: psycopg.Connection, encoded: Encoded) -> None:
    """Write the vectors as a generation, with the columns that a search reads; the indexes come later."""
    rows = len(encoded.functions)
    conn.execute(
        "INSERT INTO pgembed.encoders (name, spec, fingerprint, licence) VALUES ('benchmark', '{}', 'benchmark', '')"
    )
    conn.execute(
        "INSERT INTO pgembed.generations (id, encoder_id, onnx_path, onnx_sha256, dims, state, lists, row_count)"
        " OVERRIDING SYSTEM VALUE SELECT %s, id, '', '', 2560, 'ready', 1, %s FROM pgembed.encoders",
        (_GENERATION, rows),
    )
    table.create(conn, _GENERATION)
    for start in range(0, rows, 2048):
        block = padded(encoded.functions[start : start + 2048])
        keys = generation_keys(_GENERATION, np.arange(start + 1, start + 1 + len(block)))
        copy_rows(conn, table.identifier(_GENERATION), table.COLUMNS, keys, block)
    build(conn, "ivfflat", rows, 1)
    table.attach(conn, _GENERATION)
    conn.execute(sql.SQL("VACUUM ANALYZE {}").format(table.identifier(_GENERATION)))


def build(conn: psycopg.Connection, method: str, rows: int, lists: int) -> None:
    """Build an index, or the IVFFLAT one anew with other lists; print what it took."""
    allow_memory(conn, build_bytes(method, rows, lists), SILENT)
    there = conn.execute("SELECT to_regclass(%s)", (f"pgembed.{index_name(_GENERATION, method)}",)).fetchone()
    started = time.perf_counter()
    if there is not None and there[0] is not None:
        conn.execute(sql.SQL(query("set_index_lists")).format(index=_identifier(method), lists=sql.Literal(lists)))
        conn.execute(sql.SQL("REINDEX INDEX {}").format(_identifier(method)))
    else:
        parts = {"lists": sql.Literal(lists)} if method == "ivfflat" else {}
        name = sql.Identifier(index_name(_GENERATION, method))
        conn.execute(table.statement(f"create_{method}_index", _GENERATION, index=name, **parts))
    took = time.perf_counter() - started
    size = conn.execute(query("index_size"), {"index": f"pgembed.{index_name(_GENERATION, method)}"}).fetchone()
    assert size is not None
    if lists > 1 or method != "ivfflat":
        print(f"  {method} built in {took:.0f} s, {size[0] / 2**20:,.0f} MB")


def by_faiss(name: str, vectors: Floats, queries: Floats, tenth: Floats) -> list[Point]:
    """Search FAISS IVFFlat with as many lists, on one thread and on all."""
    import faiss

    lists = lists_for(len(vectors))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(vectors.shape[1]), vectors.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    started = time.perf_counter()
    index.train(vectors)
    index.add(vectors)
    print(f"  {name} built in {time.perf_counter() - started:.0f} s, {vectors.nbytes / 2**20:,.0f} MB")
    points = []
    for threads in (1, os.cpu_count() or 1):
        faiss.omp_set_num_threads(threads)
        engine = f"{name}, {threads} threads"

        def probed(effort: int, engine: str = engine) -> Point:
            index.nprobe = effort
            return measure(engine, effort, lambda v: index.search(v[None], _K)[0], queries, tenth)

        points += curve(efforts_for("ivfflat", lists, _K), probed)
    return points


def padded(vectors: Floats) -> Floats:
    """Return the vectors in the front of 2,560 dimensions."""
    whole = np.zeros((len(vectors), DIMENSIONS), dtype=np.float32)
    whole[:, : vectors.shape[1]] = vectors
    return whole


def compare(points: list[Point]) -> None:
    """Print the least median of each engine that reaches each recall, and the best of ours against FAISS."""
    engines = list(dict.fromkeys(point.engine for point in points))
    for target in _TARGETS:
        best = {
            engine: min(enough, key=lambda point: point.p50_ms)
            for engine in engines
            if (enough := [point for point in points if point.engine == engine and point.recall >= target])
        }
        shown = ", ".join(f"{engine} {point.p50_ms:.2f} ms ({point.recall:.3f})" for engine, point in best.items())
        print(f"  recall@10 >= {target}: {shown}")
        ours = min((p for e, p in best.items() if e.endswith("SQL")), key=lambda p: p.p50_ms, default=None)
        for engine, theirs in best.items():
            if ours is not None and engine.startswith("FAISS"):
                print(f"    {ours.engine} takes {ours.p50_ms / theirs.p50_ms:.2f} of {engine}")


def _sql(conn: psycopg.Connection, *, exact: bool = False) -> Search:
    statement = "SELECT chunk_id, score FROM pgembed.nearest(%b, 10, generation => %s, exact => %s)"

    def search(vector: Floats) -> Floats:
        rows = conn.execute(statement, (vector, _GENERATION, exact)).fetchall()
        return np.array([score for _, score in rows], dtype=np.float32)

    return search


def _identifier(method: str) -> sql.Identifier:
    return sql.Identifier("pgembed", index_name(_GENERATION, method))


def run(size: int, functions: list[Function], encoded: Encoded, asked: int) -> list[Point]:
    """Measure one size, on a server of its own."""
    encoded = Encoded(np.array(encoded.functions[:size]), encoded.queries[:asked])
    whole = padded(encoded.queries)
    scores = encoded.queries @ encoded.functions.T
    tenth = -np.partition(-scores, _K - 1, axis=1)[:, _K - 1]
    with tempfile.TemporaryDirectory(prefix="pgembed-search-") as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedServer(Path(folder) / "server", settings={"fsync": "off", "shared_buffers": "2GB"})
        dsn = server.start()
        try:
            upgrade(dsn)
            with connect(dsn, vectors=True, access="session") as conn:
                versions = conn.execute(query("server_versions")).fetchone()
                assert versions is not None
                print(
                    f"{size:,} functions, {lists_for(size)} lists, {asked} queries; PostgreSQL {versions[0]},", end=" "
                )
                print(f"pgvector {versions[1]}, shared_buffers {versions[2]}; load {os.getloadavg()[0]:.1f}")
                print(f"  {'engine':24s} effort recall    p50 ms    p95 ms")
                load(conn, functions[:size])
                points = through_sql(conn, encoded, whole, tenth)
        finally:
            server.stop()
    points += by_faiss("FAISS 2560", padded(encoded.functions), whole, tenth)
    points += by_faiss(f"FAISS {encoded.functions.shape[1]}", encoded.functions, encoded.queries, tenth)
    compare(points)
    print(f"  load at the end {os.getloadavg()[0]:.1f}", flush=True)
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encode", type=Path, metavar="FILE.npy")
    parser.add_argument("--artefact", type=Path)
    parser.add_argument("--vectors", type=Path, metavar="FILE.npy")
    parser.add_argument("--functions", type=int, nargs="+", default=[20_000, 50_000, 100_000])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    functions = cached_functions(options.cache, max(options.functions))
    if options.encode is not None:
        encode(options.encode, options.artefact, functions)
        return
    import faiss

    encoded = read_encoded(options.vectors, functions)
    print(f"FAISS {faiss.__version__}, NumPy {np.__version__}, {os.cpu_count()} cores")
    measured = {}
    for size in options.functions:
        if size > len(encoded.functions):
            print(f"{size:,} functions: only {len(encoded.functions):,} are encoded.")
            continue
        measured[size] = [asdict(point) for point in run(size, functions, encoded, options.queries)]
    if options.json is not None:
        options.json.write_text(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
