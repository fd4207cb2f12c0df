"""Search against brute force in NumPy, through Python and through the SQL functions."""

import fnmatch
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
import pytest
from fixtures_vectors import Code, Library, MadeUpEncoder, add_code
from hypothesis import given
from hypothesis import strategies as st

from pgembed.db.connection import connect
from pgembed.errors import GenerationError, SearchError, UnknownFilter
from pgembed.vectors.index import METHODS
from pgembed.vectors.reindex import reindex_with
from pgembed.vectors.search import Hit
from pgembed.vectors.search import search as search_in_a_mode

search = partial(search_in_a_mode, mode="vector")

QUERIES = ("topic3 where is it", "topic8 code 48", "topic21 how do I", "unheard of")
_SETTINGS = (
    "ivfflat.probes", "ivfflat.max_probes", "ivfflat.iterative_scan", "hnsw.ef_search", "hnsw.iterative_scan",
    "hnsw.max_scan_tuples", "enable_seqscan", "enable_sort", "enable_bitmapscan", "jit",
    "max_parallel_workers_per_gather", "search_path",
)  # fmt: skip

Keep = Callable[[Code], bool]
FILTERS: dict[str, tuple[dict[str, Any], Keep]] = {
    "most": ({"language": "python"}, lambda code: code.language == "python"),
    "few": ({"language": "rust"}, lambda code: code.language == "rust"),
    "none": ({"path": "nowhere"}, lambda code: False),
    "kind": ({"kind": "window"}, lambda code: code.kind == "window"),
    "folder": ({"path": "src"}, lambda code: any(path.startswith("src/") for _, path in code.places)),
    "glob": ({"path": "*/file3.*"}, lambda code: any("/file3." in path for _, path in code.places)),
    "one character": ({"path": "t?sts/"}, lambda code: any(path.startswith("tests/") for _, path in code.places)),
    "percent": ({"path": "100%_done/*"}, lambda code: any(path.startswith("100%_done/") for _, path in code.places)),
    "backslash": ({"path": "back\\slash"}, lambda code: any("back\\slash/" in path for _, path in code.places)),
    "source": ({"source": "main"}, lambda code: any(source == "main" for source, _ in code.places)),
    "small source": ({"source": "copies"}, lambda code: any(source == "copies" for source, _ in code.places)),
    "none together": (
        {"language": "rust", "kind": "class"}, lambda code: (code.language, code.kind) == ("rust", "class")
    ),
    "one place": (
        # a chunk that stands in one source and, in another one, below this path does not pass
        {"source": "main", "path": "vendor"},
        lambda code: any(source == "main" and path.startswith("vendor/") for source, path in code.places),
    ),
    "all at once": (
        {"language": "python", "kind": "function", "source": "main", "path": "src/*.python"},
        lambda code: code.language == "python" and code.kind == "function"
        and any(source == "main" and path.startswith("src/") for source, path in code.places),
    ),
}  # fmt: skip


def _found(hits: list[Hit]) -> list[tuple[int, float]]:
    return [(hit.chunk_id, hit.score) for hit in hits]


def _assert_same(found: list[tuple[int, float]], expected: list[tuple[int, float]]) -> None:
    assert [chunk_id for chunk_id, _ in found] == [chunk_id for chunk_id, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-6)


def _keep(library: Library, passes: Keep) -> npt.NDArray[np.bool_]:
    return np.array([passes(code) for code in library.code.values()])


def _settings(conn: psycopg.Connection) -> dict[str, str]:
    conn.execute("SELECT '[1]'::vector")  # loads the extension, and with it its settings
    rows = conn.execute("SELECT name, current_setting(name) FROM unnest(%s::text[]) name", (list(_SETTINGS),))
    return dict(rows.fetchall())


@pytest.mark.parametrize("text", QUERIES)
@pytest.mark.parametrize("k", [1, 10, 300])
def test_exact_search_is_brute_force(library: Library, reader: psycopg.Connection, text: str, k: int) -> None:
    hits = search(reader, library.encoder, text, k=k, exact=True)
    _assert_same(_found(hits), library.nearest(library.encoder.vector(text), k))
    assert [hit.rank for hit in hits] == list(range(1, k + 1))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FILTERS)
def test_filters_are_exact_and_k_come_back_whenever_k_pass(
    library: Library, reader: psycopg.Connection, method: str, name: str
) -> None:
    given_filters, passes = FILTERS[name]
    keep = _keep(library, passes)
    generation_id = library.generations[method]
    for text in QUERIES:
        expected = library.nearest(library.encoder.vector(text), 20, keep)
        exact = search(reader, library.encoder, text, k=20, generation_id=generation_id, exact=True, **given_filters)
        _assert_same(_found(exact), expected)
        indexed = search(reader, library.encoder, text, k=20, generation_id=generation_id, **given_filters)
        assert len(indexed) == len(expected) == min(20, keep.sum())
        assert all(passes(library.code[hit.chunk_id]) for hit in indexed)
        scores = dict(library.nearest(library.encoder.vector(text), len(library.ids)))
        for hit in indexed:
            assert hit.score == pytest.approx(scores[hit.chunk_id], abs=1e-6)
        assert _found(indexed) == sorted(_found(indexed), key=lambda found: (-found[1], found[0]))
        assert len({hit.chunk_id for hit in indexed}) == len(indexed)


@pytest.mark.parametrize("method", METHODS)
def test_the_index_goes_on_until_enough_pass_a_filter_that_the_nearest_do_not(
    library: Library, reader: psycopg.Connection, method: str
) -> None:
    # python's topics are the even ones: what is nearest to an odd one is nearly all of another language
    parameters = {"language": "python", "generation": library.generations[method]}
    plan = _plan(reader, library.encoder.vector("topic3 x"), 900, **parameters)
    assert "index, filtered" in plan
    hits = search(reader, library.encoder, "topic3 x", k=900, language="python", generation_id=parameters["generation"])
    assert len(hits) == 900
    assert {library.code[hit.chunk_id].language for hit in hits} == {"python"}


@pytest.mark.parametrize("method", METHODS)
def test_all_rows_come_back_when_more_are_asked_for_than_there_are(
    library: Library, reader: psycopg.Connection, method: str
) -> None:
    hits = search(reader, library.encoder, "topic1 x", k=5000, generation_id=library.generations[method])
    expected = library.nearest(library.encoder.vector("topic1 x"), 5000)
    # among 2,000 some scores are as good as equal
    assert {hit.chunk_id for hit in hits} == {chunk_id for chunk_id, _ in expected}
    assert [hit.score for hit in hits] == pytest.approx([score for _, score in expected], abs=1e-6)


def test_a_hit_says_what_it_is_and_where_it_stands(library: Library, reader: psycopg.Connection) -> None:
    (hit,) = search(reader, library.encoder, "topic10 code 50", k=1)
    code = library.code[hit.chunk_id]
    assert (hit.content, hit.language, hit.kind) == (code.content, code.language, code.kind)
    assert code.content == "topic10 code 50"
    assert hit.score == pytest.approx(1, abs=1e-6)
    # of its two places the first by source and path, or the one that the filter asks for
    assert (hit.source, hit.path, hit.locations) == ("copies", "vendor/file50.python", 2)
    assert (hit.start_line, hit.end_line) == (hit.chunk_id, hit.chunk_id)
    (same,) = search(reader, library.encoder, "topic10 code 50", k=1, source="main")
    assert (same.chunk_id, same.source, same.path, same.locations) == (hit.chunk_id, *code.places[0], 2)


@given(st.text(st.sampled_from("ab%_\\*?/."), max_size=6), st.text(st.sampled_from("ab%_\\/."), max_size=6))
def test_a_glob_finds_what_fnmatch_finds_and_all_beneath(library: Library, glob: str, path: str) -> None:
    with psycopg.connect(library.url) as conn:
        row = conn.execute("SELECT %s LIKE ANY (pgembed.path_patterns(%s))", (path, glob)).fetchone()
    bare = glob.rstrip("/")
    assert row == (fnmatch.fnmatchcase(path, bare) or fnmatch.fnmatchcase(path, bare + "/*"),)


def _sql(conn: psycopg.Connection, vector: npt.NDArray[np.float32], more: str = "", *values: object) -> list[Any]:
    statement: Any = f"SELECT rank, score, chunk_id, path, content FROM pgembed.search(%s, 10{more})"
    return conn.execute(statement, (vector, *values)).fetchall()


def _plan(conn: psycopg.Connection, vector: npt.NDArray[np.float32], k: int, **parameters: object) -> str:
    named = "".join(f", {name} => %({name})s" for name in parameters)
    statement: Any = f"SELECT * FROM pgembed.search_plan(%(query)s, %(k)s{named})"
    rows = conn.execute(statement, {"query": vector, "k": k, **parameters}).fetchall()
    return "\n".join(str(row[0]) for row in rows)


@pytest.mark.parametrize("parameters", [{}, {"language": "python"}, {"language": "go", "path": "src/*"}])
def test_the_sql_function_answers_as_python_does(
    library: Library, reader: psycopg.Connection, parameters: dict[str, str]
) -> None:
    for text in QUERIES:
        hits = search(reader, library.encoder, text, **parameters)
        expected = [(hit.rank, hit.score, hit.chunk_id, hit.path, hit.content) for hit in hits]
        named = "".join(f", {name} => %s" for name in parameters)
        assert _sql(reader, library.encoder.vector(text), named, *parameters.values()) == expected


def test_the_sql_function_takes_a_vector_as_text_from_a_client_that_knows_no_pgvector(library: Library) -> None:
    vector = library.encoder.vector(QUERIES[0])
    # neither pgvector's types nor its schema: a bare session, with nothing loaded
    with psycopg.connect(library.url) as conn:
        conn.execute("SET search_path = pg_catalog")
        rows = conn.execute(
            "SELECT chunk_id, score FROM pgembed.search($1, 10)".replace("$1", "%s"), (str(vector.tolist()),)
        ).fetchall()
    with connect(library.url, vectors=True) as conn:
        assert rows == _found(search(conn, library.encoder, QUERIES[0]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factor", [1e-9, 0.01, 1000.0, 1e7])
def test_the_length_of_the_query_vector_does_not_matter(
    library: Library, reader: psycopg.Connection, method: str, factor: float
) -> None:
    vector = library.encoder.vector(QUERIES[0])
    at = ", generation => %s", library.generations[method]
    expected = _sql(reader, vector, *at)
    found = _sql(reader, vector * np.float32(factor), *at)
    assert [row[2] for row in found] == [row[2] for row in expected]
    assert [row[1] for row in found] == pytest.approx([row[1] for row in expected], abs=1e-6)


def test_a_vector_without_direction_or_of_another_width_is_refused(reader: psycopg.Connection) -> None:
    for wrong, message in (
        (np.zeros(2560, np.float32), "all zero"),
        (np.ones(384, np.float32), "of 384 dimensions"),
        (None, "null"),
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
            _sql(reader, wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_settings_are_as_before_after_a_search(library: Library, reader: psycopg.Connection, method: str) -> None:
    vector = library.encoder.vector(QUERIES[0])
    at = ", generation => %s", library.generations[method]
    untouched = _settings(reader)
    _sql(reader, vector, *at)
    assert _settings(reader) == untouched
    reader.execute("SET ivfflat.probes = 3")
    reader.execute("SET enable_sort = off")
    with reader.transaction():
        reader.execute("SET LOCAL hnsw.ef_search = 77")
        within = _settings(reader)
        assert within != untouched
        _sql(reader, vector, *at)
        _plan(reader, vector, 10, generation=library.generations[method])
        assert _settings(reader) == within
    reader.execute("RESET enable_sort")
    assert _settings(reader) == {**untouched, "ivfflat.probes": "3"}


def test_the_first_search_of_a_session_leaves_the_settings_of_a_new_one(library: Library) -> None:
    with connect(library.url, vectors=True) as first, connect(library.url) as other:
        search(first, library.encoder, QUERIES[0])
        assert _settings(first) == _settings(other)


def test_settings_are_as_before_after_a_search_that_failed(library: Library, reader: psycopg.Connection) -> None:
    vector = library.encoder.vector(QUERIES[0])
    untouched = _settings(reader)
    with reader.transaction():
        # a float that halfvec refuses cannot come in; a timeout in the middle of the search can
        reader.execute("SET LOCAL statement_timeout = '1ms'")
        reader.execute("SAVEPOINT before")
        with pytest.raises(psycopg.errors.QueryCanceled):
            reader.execute("SELECT count(*) FROM generate_series(1, 100000), pgembed.nearest(%s, 2000)", (vector,))
        reader.execute("ROLLBACK TO before")
        reader.execute("SET LOCAL statement_timeout = 0")
        assert _settings(reader) == untouched
        # an error that SQL itself catches, within one statement
        reader.execute(
            'DO $$ BEGIN PERFORM pgembed.swap_settings(\'{"ivfflat.probes": "9", "enable_sort": "off"}\');'
            " RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN NULL; END $$"
        )
        assert _settings(reader) == untouched
    assert _settings(reader) == untouched


def test_a_search_runs_in_a_transaction_that_only_reads(library: Library, reader: psycopg.Connection) -> None:
    with reader.transaction():
        reader.execute("SET TRANSACTION READ ONLY")
        assert len(search(reader, library.encoder, QUERIES[0])) == 10


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused(library: Library, reader: psycopg.Connection, k: int) -> None:
    with pytest.raises(SearchError, match=f"k is {k}"):
        search(reader, library.encoder, "x", k=k)


def test_an_enormous_k_gives_all_there_is(library: Library, reader: psycopg.Connection) -> None:
    for k in (2**31 - 1, 2**40):
        assert len(search(reader, library.encoder, "x", k=k, language="rust")) == 10


@pytest.mark.parametrize("text", ["", " ", "\n\t  ", "\u3000"])
def test_blank_text_is_refused(library: Library, reader: psycopg.Connection, text: str) -> None:
    with pytest.raises(SearchError, match="is empty"):
        search(reader, library.encoder, text)


@pytest.mark.parametrize("value", ["'; DROP TABLE pgembed.code_chunks; --", "%", "\\", '"', "$1", "a" * 100_000, "é😀"])
def test_hostile_filters_harm_nothing(library: Library, reader: psycopg.Connection, value: str) -> None:
    assert search(reader, library.encoder, "x", path=value) == []
    for name in ("language", "source", "kind"):
        with pytest.raises(UnknownFilter) as caught:
            search(reader, library.encoder, "x", **{name: value})
        assert caught.value.filter == name
        assert value[:100] in caught.value.message
        assert len(str(caught.value)) < 1000
    assert reader.execute("SELECT count(*) FROM pgembed.code_chunks").fetchone() == (2000,)


@pytest.mark.parametrize("value", ["nul\0", "\udcff"])
def test_a_filter_that_no_text_column_can_hold_is_refused(
    library: Library, reader: psycopg.Connection, value: str
) -> None:
    for name in ("language", "path", "source", "kind"):
        with pytest.raises(SearchError, match=name):
            search(reader, library.encoder, "x", **{name: value})


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE x; --", "nul\0byte", '"', "\\", "[SEP]", "\x1b[31m", "wörter " * 50_000]
)
def test_hostile_text_is_searched_for_like_any_other(library: Library, reader: psycopg.Connection, text: str) -> None:
    assert len(search(reader, library.encoder, text)) == 10


def test_text_that_is_not_unicode_is_refused(library: Library, reader: psycopg.Connection) -> None:
    with pytest.raises(SearchError, match=r"text holds .* not valid Unicode"):
        search(reader, library.encoder, "caf\udce9")


def test_nothing_active_and_an_unknown_generation_say_what_to_do(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    with pytest.raises(SearchError, match="pgembed reindex --activate"):
        search(conn, encoder, "x")
    with pytest.raises(SearchError, match="no generation 7"):
        search(conn, encoder, "x", generation_id=7)
    vector = encoder.vector("x")
    add_code(conn, ["one"])
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="no generation is active"):
        _sql(conn, vector)
    with pytest.raises(psycopg.errors.UndefinedObject, match="no generation 7"):
        _sql(conn, vector, ", generation => 7")
    encoder.bad["one"] = float("nan")
    with pytest.raises(GenerationError):
        reindex_with(database_url, encoder)
    with pytest.raises(SearchError, match="it is failed"):
        search(conn, encoder, "x", generation_id=1)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="it is failed"):
        _sql(conn, vector, ", generation => 1")


def test_another_encoder_is_refused(library: Library, reader: psycopg.Connection) -> None:
    other = MadeUpEncoder(library.encoder.manifest.path.parent, "other")
    with pytest.raises(SearchError, match=r"made by the encoder made-up; other in .* is another one"):
        search(reader, other, "x")


def test_a_generation_without_any_chunk_left_answers_with_nothing(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    add_code(conn, ["one", "two"])
    reindex_with(database_url, encoder, activate=True)
    assert len(search(conn, encoder, "one")) == 2
    conn.execute("DELETE FROM pgembed.code_chunks")
    assert search(conn, encoder, "one") == []
    assert search(conn, encoder, "one", exact=True, path="*") == []


def test_the_plan_shows_strategy_settings_and_no_vector(library: Library, reader: psycopg.Connection) -> None:
    plan = _plan(reader, library.encoder.vector("x"), 10, language="python")
    assert plan.startswith("generation 1: index, filtered (about 1")
    assert "ivfflat.probes = " in plan
    assert max(map(len, plan.splitlines())) < 400
    assert json.dumps(library.encoder.vector("x")[:2].tolist())[1:20] not in plan
