"""Indexes: recall that NumPy measures too, plans that use them, the memory that their builds need."""

import math
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
import pytest
from fixtures_vectors import Library, MadeUpEncoder, add_code

from pgembed.vectors.generations import get_generation
from pgembed.vectors.index import METHODS, build_memory, calibrate_probes, exact_nearest, index_name
from pgembed.vectors.reindex import reindex_with


def _queries(library: Library) -> npt.NDArray[np.float32]:
    """Return the docstrings, in no relation to which of them were used for the calibration."""
    texts = [code.docstring for code in library.code.values() if code.docstring is not None]
    return np.array([library.encoder.vector(text) for text in texts[::7]])


def _recall(
    conn: psycopg.Connection, library: Library, generation_id: int, queries: npt.NDArray[np.float32], k: int = 10
) -> float:
    """Return the mean share of the k best of NumPy that the SQL function finds."""
    best = np.argsort(-(queries.astype(np.float64) @ library.vectors.T), axis=1)[:, :k]
    found = 0
    for query, wanted in zip(queries, library.ids[best].tolist(), strict=True):
        rows = conn.execute(
            "SELECT chunk_id FROM pgembed.nearest(%s, %s, generation => %s)", (query, k, generation_id)
        ).fetchall()
        found += len({row[0] for row in rows} & set(wanted))
    return found / (k * len(queries))


def _calibration_queries(conn: psycopg.Connection, library: Library) -> npt.NDArray[np.float32]:
    rows = conn.execute(
        "SELECT docstring FROM pgembed.code_chunks WHERE docstring IS NOT NULL ORDER BY hashint8(id) LIMIT 100"
    ).fetchall()
    return np.array([library.encoder.vector(row[0]) for row in rows])


@pytest.mark.parametrize("method", METHODS)
def test_the_stored_recall_is_the_one_that_numpy_measures_and_reaches_the_target(
    library: Library, reader: psycopg.Connection, method: str
) -> None:
    generation = get_generation(reader, library.generations[method])
    measured = _recall(reader, library, generation.id, _calibration_queries(reader, library))
    assert generation.index_recall == pytest.approx(measured, abs=1e-9)
    assert measured >= 0.95
    # and on questions that took no part in it
    assert _recall(reader, library, generation.id, _queries(library)) >= 0.9


def test_the_effort_is_the_least_that_reaches_the_target(library: Library, reader: psycopg.Connection) -> None:
    queries = _calibration_queries(reader, library)[:50]
    generation_id = library.generations["ivfflat"]
    least = []
    with reader.transaction(force_rollback=True):
        for target in (0.5, 0.9, 1.0):
            calibration = calibrate_probes(reader, generation_id, queries, target_recall=target)
            assert calibration.reached
            assert _recall(reader, library, generation_id, queries) == pytest.approx(calibration.recall, abs=1e-9)
            least.append(calibration.probes)
            if calibration.probes > 1:
                fewer = calibration.probes - max(1, calibration.probes // 16)
                reader.execute("UPDATE pgembed.generations SET probes = %s WHERE id = %s", (fewer, generation_id))
                assert _recall(reader, library, generation_id, queries) < target
    assert least == sorted(least)
    assert 1 <= least[0] < least[-1] <= 45


def test_texts_that_share_a_vector_are_as_good_as_each_other(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    # an encoder that cuts a text short sees one vector where many chunks begin alike
    encoder.reads = 2
    add_code(conn, [f"topic{n % 5} licence {n}" for n in range(1200)])
    result = reindex_with(database_url, encoder)
    assert (result.probes, result.index_recall) == (1, 1.0)


@pytest.mark.parametrize("parameters", [{}, {"language": "python"}, {"language": "python", "kind": "function"}])
@pytest.mark.parametrize("method", METHODS)
def test_the_plan_walks_along_the_index_and_reads_no_table_from_end_to_end(
    library: Library, reader: psycopg.Connection, method: str, parameters: dict[str, str]
) -> None:
    generation_id = library.generations[method]
    named = "".join(f", {name} => %({name})s" for name in parameters)
    statement: Any = f"SELECT * FROM pgembed.search_plan(%(query)s, 10, generation => %(generation)s{named})"
    values = {"query": library.encoder.vector("topic1 x"), "generation": generation_id, **parameters}
    lines = [str(row[0]) for row in reader.execute(statement, values)]
    plan = "\n".join(lines)
    if "kind" in parameters:  # few pass: an exact scan of these
        assert lines[0].startswith(f"generation {generation_id}: exact, filtered")
        return
    assert lines[0].startswith(f"generation {generation_id}: index")
    assert f"Index Scan using {index_name(generation_id, method)} on code_embeddings_{generation_id} " in plan
    assert not re.search(r"Seq Scan on (code_embeddings|code_chunks)", plan)
    exact: Any = "SELECT * FROM pgembed.search_plan(%(query)s, 10, generation => %(generation)s, exact => true)"
    assert index_name(generation_id, method) not in "\n".join(str(row[0]) for row in reader.execute(exact, values))


@pytest.mark.parametrize("method", METHODS)
def test_the_most_effort_does_not_turn_the_search_into_a_sequential_scan(
    library: Library, reader: psycopg.Connection, method: str
) -> None:
    generation_id = library.generations[method]
    effort = 45 if method == "ivfflat" else 1000
    statement: Any = "SELECT * FROM pgembed.search_plan(%s, 500, generation => %s)"
    with reader.transaction(force_rollback=True):
        reader.execute("UPDATE pgembed.generations SET probes = %s WHERE id = %s", (effort, generation_id))
        plan = "\n".join(
            str(row[0]) for row in reader.execute(statement, (library.encoder.vector("topic1 x"), generation_id))
        )
    assert f"= {effort}" in plan
    # beside a graph the single list is an exact scan, which costs less where so much is asked for
    usable = "|".join(index_name(generation_id, one) for one in (method, "ivfflat"))
    assert re.search(f"Index Scan using ({usable}) ", plan)
    assert "Seq Scan" not in plan


@pytest.mark.parametrize("method", METHODS)
def test_a_target_of_everything_is_measured_with_the_most_effort_at_worst(
    library: Library, reader: psycopg.Connection, method: str
) -> None:
    queries = _calibration_queries(reader, library)[:30]
    with reader.transaction(force_rollback=True):
        calibration = calibrate_probes(reader, library.generations[method], queries, target_recall=1.0)
        assert _recall(reader, library, library.generations[method], queries) == pytest.approx(calibration.recall)
    assert calibration.reached or calibration.probes == 1000


def test_exact_nearest_is_brute_force(library: Library, reader: psycopg.Connection) -> None:
    queries = _queries(library)[:20]
    ids, scores = exact_nearest(reader, library.generations["hnsw"], queries * np.float32(3), 10)
    expected = [library.nearest(query, 10) for query in queries]
    assert ids.tolist() == [[chunk_id for chunk_id, _ in found] for found in expected]
    assert scores == pytest.approx(np.array([[score for _, score in found] for found in expected]), abs=1e-6)
    assert exact_nearest(reader, library.generations["hnsw"], queries, 5000)[0].shape == (20, 2000)


def test_the_memory_for_a_build_is_what_the_server_needs(conn: psycopg.Connection) -> None:
    conn.execute("CREATE TEMP TABLE t (embedding vector(2560))")
    # as many rows as are looked at for so many lists
    conn.execute("INSERT INTO t SELECT array_fill(i, ARRAY[2560])::vector FROM generate_series(1, 10000) i")
    statement: Any = (
        "CREATE INDEX ON t USING ivfflat ((embedding::halfvec(2560)) halfvec_cosine_ops) WITH (lists = 100)"
    )
    for share, enough in ((0.95, False), (1.0, True)):
        kilobytes = math.ceil(share * build_memory(100) / 1024)
        conn.execute("SELECT set_config('maintenance_work_mem', %s, false)", (f"{kilobytes}kB",))
        if enough:
            conn.execute(statement)
        else:
            with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="memory required"):
                conn.execute(statement)
