"""`pgembed index compare` and what eval measures of an index: against brute force, and without a trace."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import psycopg
import pytest
from fixtures_cli import pgembed
from fixtures_vectors import Library, add_code
from psycopg import sql

from pgembed.db.connection import connect
from pgembed.errors import GenerationError
from pgembed.vectors.comparing import _Asked, compare_indexes
from pgembed.vectors.generations import get_generation
from pgembed.vectors.index import METHODS
from pgembed.vectors.measuring import measure_search
from pgembed.vectors.reindex import reindex


def _queries(library: Library, count: int = 30) -> npt.NDArray[np.float32]:
    texts = [code.docstring for code in library.code.values() if code.docstring is not None]
    return np.array([library.encoder.vector(text) for text in texts[3 :: len(texts) // count][:count]])


def _relations(conn: psycopg.Connection) -> set[str]:
    rows = conn.execute("SELECT relname FROM pg_class WHERE relnamespace = 'pgembed'::regnamespace")
    return {str(row[0]) for row in rows}


def _settings(conn: psycopg.Connection) -> dict[str, str]:
    return dict(conn.execute("SELECT name, setting FROM pg_settings").fetchall())


def test_every_method_is_measured_up_to_exactness_and_nothing_stays(
    library: Library, reader: psycopg.Connection
) -> None:
    reader.execute("SELECT '[1]'::vector <-> '[2]'::vector")  # loads the extension, which brings settings of its own
    relations, settings = _relations(reader), _settings(reader)
    queries = _queries(library)
    found = compare_indexes(reader, library.generations["hnsw"], queries, sample=1200)
    assert [one.method for one in found.methods] == list(METHODS)
    assert (found.rows, found.rows_of_generation, found.queries, found.k) == (1200, 2000, 30, 10)
    assert found.server.startswith(str(reader.info.server_version // 10000))
    for one in found.methods:
        efforts, recalls = ([getattr(p, name) for p in one.points] for name in ("effort", "recall"))
        assert efforts == sorted(efforts)
        assert recalls[0] < recalls[-1] <= 1.0
        assert recalls[-1] >= 0.98
        assert all(0 < point.p50_ms <= point.p95_ms for point in one.points)
        assert one.size_bytes > 100_000
    ivfflat, hnsw, binary = found.methods
    assert (ivfflat.lists, ivfflat.points[-1].recall) == (35, 1.0)
    assert binary.size_bytes < hnsw.size_bytes / 4  # 2,560 bits against 2,560 halves
    assert found.recommended is not None
    assert found.recommended.point.recall >= 0.95
    assert (_relations(reader), _settings(reader)) == (relations, settings)


def test_recall_is_the_share_of_the_exact_ten(library: Library, reader: psycopg.Connection) -> None:
    queries = _queries(library)
    tenth = np.sort(queries.astype(np.float64) @ library.vectors.T, axis=1)[:, -10].astype(np.float32)
    asked = _Asked(reader, queries, tenth, 10)
    partition = sql.Identifier("pgembed", f"code_embeddings_{library.generations['ivfflat']}")
    # what leaves out the nearest three finds seven of ten
    statement = sql.SQL(
        "SELECT chunk_id, 1 - (embedding <=> %(query)b) FROM {}"
        " ORDER BY embedding <=> %(query)b, chunk_id OFFSET {} LIMIT %(k)s"
    )
    for left_out in (0, 3, 10):
        recall, milliseconds = asked.run(statement.format(partition, sql.Literal(left_out)), 10)
        assert recall == pytest.approx((10 - left_out) / 10)
        assert len(milliseconds) == 30


def test_an_error_leaves_nothing_either(library: Library, reader: psycopg.Connection) -> None:
    relations = _relations(reader)

    class Interrupted(Exception):
        pass

    class Progress:
        def say(self, text: str) -> None:
            assert any(name.startswith("index_sample_") for name in _relations(reader) - relations)
            if "hnsw" in text:
                raise Interrupted

        def task(self, *_: object) -> Any:
            from pgembed.progress import SILENT

            return SILENT.task("", None, "")

    with pytest.raises(Interrupted):
        compare_indexes(reader, library.generations["ivfflat"], _queries(library, 2), sample=100, progress=Progress())
    assert _relations(reader) == relations
    with pytest.raises(GenerationError, match="no vectors"):
        compare_indexes(reader, library.generations["ivfflat"], _queries(library)[:0], sample=100)
    assert _relations(reader) == relations


@pytest.mark.parametrize("method", METHODS)
def test_what_is_measured_of_a_generation_is_what_numpy_finds(
    library: Library, reader: psycopg.Connection, method: str
) -> None:
    queries = _queries(library)
    generation = get_generation(reader, library.generations[method])
    found = 0
    for query in queries:
        rows = reader.execute("SELECT chunk_id FROM pgembed.nearest(%s, 10, generation => %s)", (query, generation.id))
        found += len({row[0] for row in rows} & {chunk_id for chunk_id, _ in library.nearest(query, 10)})
    measured = measure_search(reader, generation, queries)
    assert measured.recall == pytest.approx(found / 300, abs=1e-9)
    assert 0 < measured.p50_ms <= measured.p95_ms
    assert (measured.queries, measured.rows, measured.effort) == (30, 2000, generation.probes)
    assert measured.is_of(generation, measured.to_metrics())
    assert not measured.is_of(generation, {**measured.to_metrics(), "effort": 999})


def test_the_calibration_keeps_what_it_tried(library: Library, reader: psycopg.Connection) -> None:
    for method in METHODS:
        generation = get_generation(reader, library.generations[method])
        curve = generation.metrics["calibration_curve"]
        recalls = dict(curve["recall"])
        assert recalls[generation.probes] == pytest.approx(generation.index_recall)
        assert (curve["k"], curve["target"]) == (10, 0.95)
        assert min(recalls) == (1 if method == "ivfflat" else 10)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_each_vector_is_fetched_once_for_its_distance(
    library: Library, reader: psycopg.Connection, method: str, exact: bool
) -> None:
    row = reader.execute(
        "SELECT statement, settings FROM pgembed.search_strategy(100, NULL, NULL, NULL, NULL, %s, %s)",
        (library.generations[method], exact),
    ).fetchone()
    assert row is not None
    statement, settings = row
    assert statement.count("embedding <=> $1 AS distance") == 1
    # as it was before: the distance once for the score and once for the order
    twice = statement.replace("embedding <=> $1 AS distance", "embedding").replace(" OFFSET 0", "")
    twice = twice.replace("1 - n.distance", "1 - (n.embedding <=> $1)").replace("n.distance", "n.embedding <=> $1")
    pages = []
    with reader.transaction(force_rollback=True):
        reader.execute("SET LOCAL search_path = pgembed, public")
        for name, value in settings.items():
            reader.execute("SELECT set_config(%s, %s, true)", (name, str(value)))
        for text in (statement, twice):
            asked = text.replace("$1", "%(query)b").replace("$2", "%(k)s")
            explain: Any = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {asked}"
            plan = reader.execute(explain, {"query": library.encoder.vector("topic1 x"), "k": 100}).fetchone()
            assert plan is not None
            pages.append(sum(plan[0][0]["Plan"][kind] for kind in ("Shared Hit Blocks", "Shared Read Blocks")))
    # a vector of 10 KB is on four pages, with those of the index that finds it
    rows = 2000 if exact else 100
    assert pages[1] - pages[0] >= 2 * rows


def test_the_command_shows_draws_and_tells_scripts(database_url: str, tiny_encoder: Path, tmp_path: Path) -> None:
    with connect(database_url, access="session") as conn:
        add_code(conn, [f"def f{n}(): return [{n}, {n * n}, {n % 7}]" for n in range(60)])
    early = pgembed("index", "compare", "--dsn", database_url)
    assert (early.code, early.stdout) == (1, "")
    assert "No generation is active" in early.stderr
    reindex(database_url, tiny_encoder, activate=True)
    shown = pgembed("index", "compare", "--dsn", database_url, "--queries", "5", "--plot", str(tmp_path / "p.svg"))
    assert shown.code == 0, shown.stderr
    for said in ("60 of the 60 vectors", "5 queries", "PostgreSQL 1", "warm cache", "ivfflat", "hnsw", "binary"):
        assert said in shown.stdout
    assert "Recommended: " in shown.stdout
    drawn = ElementTree.fromstring((tmp_path / "p.svg").read_text())  # noqa: S314 - our own drawing
    assert len(drawn.findall(".//{http://www.w3.org/2000/svg}polyline")) == 3
    told = json.loads(pgembed("index", "compare", "--dsn", database_url, "--queries", "5", "--json").stdout)
    assert {one["method"] for one in told["methods"]} == set(METHODS)
    assert told["cache"] == "warm"
    png = pgembed("index", "compare", "--dsn", database_url, "--plot", "recall.png")
    assert (png.code, "svg" in png.stderr) == (2, True)
    nowhere = pgembed("index", "compare", "--dsn", database_url, "--plot", str(tmp_path / "no" / "recall.svg"))
    assert (nowhere.code, "there is no folder" in nowhere.stderr, "Building" in nowhere.stderr) == (1, True, False)
