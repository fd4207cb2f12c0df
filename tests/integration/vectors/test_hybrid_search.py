"""Both rankings fused, copies folded, examples and explanations: against computations by hand on real code."""

from dataclasses import replace
from typing import Any

import psycopg
import pytest
from fixtures_hybrid import CodeBase
from psycopg.rows import class_row

from pgembed.db.connection import connect
from pgembed.errors import SearchError
from pgembed.tokens import tokens
from pgembed.vectors.example import by_example, example_at
from pgembed.vectors.explain import explain
from pgembed.vectors.question import MODES, Mode, Question
from pgembed.vectors.search import Hit, find, search, searchable

QUERIES = ("parse the header of a message", "def decode json string", "raise an error", "boundary", "kurtosis é")
HOSTILE = (
    "'; DROP TABLE pgembed.code_chunks; --", '"', "%", "\\", "$1", "%(query)s", "{}", "()!@#", "1 2 3", "😀", "\u202e",
    "a\0b", "parse " * 20_000, " ".join(f"word{'x' * n}" for n in range(1, 300)), "ＦＵＬＬ", "İi̇ ß ﬁ", "' OR true --",
)  # fmt: skip
FILTERS: list[dict[str, str]] = [
    {"kind": "class"}, {"path": "mime/*"}, {"source": "fork"}, {"path": "100%"},
    {"language": "restructuredtext", "kind": "method"},
    {"language": "python", "source": "email", "path": "message.py", "kind": "method"},
]  # fmt: skip


def _ranks(conn: psycopg.Connection, statement: Any, *values: object) -> dict[int, tuple[int, float]]:
    """Return rank and score by chunk, of a statement that gives chunks and scores, best first."""
    return {i: (rank, score) for rank, (i, score) in enumerate(conn.execute(statement, values).fetchall(), 1)}


@pytest.mark.parametrize(
    "settings",
    [{}, {"rrf_k": 60, "lexical_weight": 1}, {"vector_weight": 0, "candidates": 30}, {"lexical_weight": 0.7}],
)
def test_fusion_is_reciprocal_rank_by_hand(
    base: CodeBase, base_conn: psycopg.Connection, settings: dict[str, float]
) -> None:
    with base_conn.transaction(force_rollback=True):
        for name, value in settings.items():
            base_conn.execute("UPDATE pgembed.search_settings SET value = %s WHERE name = %s", (value, name))
        now = dict(base_conn.execute("SELECT name, value FROM pgembed.search_settings").fetchall())
        assert settings.items() <= now.items()
        for text in QUERIES:
            depth = int(max(now["candidates"], 2 * 40))
            vectors = _ranks(base_conn, "SELECT * FROM pgembed.nearest(%s, %s)", base.encoder.vector(text), depth)
            words = _ranks(base_conn, "SELECT * FROM pgembed.lexical_matches(%s, %s)", sorted(tokens(text)), depth)
            expected = {}
            for i in vectors.keys() | words.keys():
                expected[i] = now["vector_weight"] / (now["rrf_k"] + vectors[i][0]) if i in vectors else 0
                expected[i] += now["lexical_weight"] / (now["rrf_k"] + words[i][0]) if i in words else 0
            named = {i for i, code in base.code.items() if text in (code.symbol, *(p[4] for p in code.places))}
            for i in named:
                expected[i] = expected.get(i, 0) + now["symbol_weight"] / (now["rrf_k"] + 1)
            hits = search(base_conn, base.encoder, text, k=40, mode="hybrid", collapse=False)
            order = sorted(expected, key=lambda i: (-expected[i], i))
            assert [hit.chunk_id for hit in hits] == order[:40]
            for hit in hits:
                assert hit.score == pytest.approx(expected[hit.chunk_id])
                assert (hit.vector_rank, hit.vector_score) == vectors.get(hit.chunk_id, (None, None))
                assert (hit.lexical_rank, hit.lexical_score) == words.get(hit.chunk_id, (None, None))
                assert hit.symbol_match == (hit.chunk_id in named)


@pytest.mark.parametrize("mode", ["lexical", "hybrid"])
def test_what_is_called_as_asked_comes_first(base: CodeBase, base_conn: psycopg.Connection, mode: Mode) -> None:
    for name in ("Message.get_payload", "get_payload", "JSONDecoder", "py_scanstring", "  Message.get_payload\n"):
        wanted = name.strip()
        named = {i for i, code in base.code.items() if wanted in (code.symbol, *(place[4] for place in code.places))}
        assert named
        hits = search(base_conn, base.encoder, name, mode=mode, collapse=False)
        assert {hit.chunk_id for hit in hits[: len(named)]} == named
        assert [hit.symbol_match for hit in hits] == [True] * len(named) + [False] * (len(hits) - len(named))
    vectors = search(base_conn, base.encoder, "JSONDecoder", mode="vector")
    assert not any(hit.symbol_match for hit in vectors)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("k", [1, 10, 60, 5000])
def test_copies_fold_into_the_first_and_k_distinct_come_back(
    base: CodeBase, base_conn: psycopg.Connection, mode: Mode, k: int
) -> None:
    assert len(base.copies) > 50
    for text in QUERIES[: 1 if k == 5000 else 3]:
        everything = search(base_conn, base.encoder, text, k=5000, mode=mode, exact=mode != "lexical", collapse=False)
        kept: list[int] = []
        for hit in everything:
            if not any(frozenset((hit.chunk_id, above)) in base.copies for above in kept):
                kept.append(hit.chunk_id)
        assert len(kept) < len(everything)
        hits = search(base_conn, base.encoder, text, k=k, mode=mode, exact=mode != "lexical")
        # of another depth, a fused score may differ; the first of all are as deep as the lists are
        if mode != "hybrid" or k == 5000:
            assert [hit.chunk_id for hit in hits] == kept[:k]
        assert len(hits) == min(k, len(kept))
        assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
        above: list[int] = []
        for hit in hits:
            own = {
                other: jaccard
                for pair, jaccard in base.copies.items()
                if hit.chunk_id in pair
                for other in pair - {hit.chunk_id}
                if not any(frozenset((other, earlier)) in base.copies for earlier in above)
            }
            assert hit.copies == len(own)
            listed = sorted(own, key=lambda i: (-own[i], i))[:20]
            assert [copy["chunk_id"] for copy in hit.also] == listed
            for copy in hit.also:
                source, path, first, last, symbol = base.code[copy["chunk_id"]].places[0]
                assert (copy["source"], copy["path"], copy["start_line"], copy["end_line"]) == (
                    source,
                    path,
                    first,
                    last,
                )
                assert (copy["symbol"], copy["jaccard"]) == (symbol, own[copy["chunk_id"]])
                assert copy["locations"] == len(base.code[copy["chunk_id"]].places)
            above.append(hit.chunk_id)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("filters", FILTERS)
def test_filters_hold_in_every_mode_and_for_copies(
    base: CodeBase, base_conn: psycopg.Connection, mode: Mode, filters: dict[str, str]
) -> None:
    for text in QUERIES[:3]:
        found = search(base_conn, base.encoder, text, k=1000, mode=mode, collapse=False, **filters)  # type: ignore[arg-type]
        passing = {i for i in base.code if base.passes(i, **filters)}
        if mode == "lexical":
            passing = {i for i in passing if base.words[i] & tokens(text)}
        assert {hit.chunk_id for hit in found} == passing
        folded = search(base_conn, base.encoder, text, k=1000, mode=mode, **filters)  # type: ignore[arg-type]
        assert all(base.passes(copy["chunk_id"], **filters) for hit in folded for copy in hit.also)
        for k in (1, 5):
            few = search(base_conn, base.encoder, text, k=k, mode=mode, **filters)  # type: ignore[arg-type]
            assert len(few) == min(k, len(folded))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_queries_are_text(base: CodeBase, base_conn: psycopg.Connection, mode: Mode, text: str) -> None:
    hits = search(base_conn, base.encoder, text, mode=mode)
    if mode == "lexical":
        assert all(base.words[hit.chunk_id] & tokens(text) for hit in hits)
        known = {word for words in base.words.values() for word in words}
        assert bool(hits) == bool(tokens(text) & known)
    else:
        assert len(hits) == 10
    assert base_conn.execute("SELECT count(*) FROM pgembed.code_chunks").fetchone() == (len(base.code),)


def test_lexical_search_needs_no_generation_and_no_encoder(conn: psycopg.Connection, tmp_path: Any) -> None:
    from pgembed.corpus.ingest import ingest

    (tmp_path / "a.py").write_text('def open_socket(host):\n    """Dial a peer."""\n    return connect(host)\n')
    (tmp_path / "b.py").write_text("def close_file(handle):\n    handle.close()\n")
    ingest(conn, tmp_path)
    (hit,) = search(conn, None, "dial", mode="lexical")  # a word of the docstring alone
    assert (hit.symbol, hit.vector_rank, hit.lexical_rank) == ("open_socket", None, 1)
    for mode in ("vector", "hybrid"):
        with pytest.raises(SearchError, match="needs the encoder"):
            search(conn, None, "dial", mode=mode)  # type: ignore[arg-type]
    with pytest.raises(SearchError, match=r"No generation is active.*--mode lexical|No generation is active"):
        searchable(conn)
    (tmp_path / "a.py").write_text("def open_door():\n    return key\n")
    ingest(conn, tmp_path)
    assert search(conn, None, "dial", mode="lexical") == []
    assert [hit.symbol for hit in search(conn, None, "door", mode="lexical")] == ["open_door"]


def test_an_answer_repeats_and_needs_no_more_than_to_read(base: CodeBase) -> None:
    answers = []
    for _ in range(2):
        with connect(base.url, vectors=True) as conn, conn.transaction():
            conn.execute("SET TRANSACTION READ ONLY")
            answers.append([search(conn, base.encoder, text) for text in QUERIES])
    assert answers[0] == answers[1]


def test_vectors_are_searched_through_the_index(base: CodeBase, base_conn: psycopg.Connection) -> None:
    question = Question().by_text("parse header", "hybrid")
    question = question.by_vector(base.encoder, "parse header", searchable(base_conn))
    plans = explain(base_conn, question, []).plans
    assert "_embedding_idx" in "\n".join(plans["vectors"])
    assert "lexical_documents_token_ids_idx" in "\n".join(plans["words"])


def test_an_explanation_has_the_parts_of_each_score(base: CodeBase, base_conn: psycopg.Connection) -> None:
    text = "parse the header zzzunknown"
    question = Question(k=15).by_text(text, "hybrid").by_vector(base.encoder, text, searchable(base_conn))
    hits = find(base_conn, question)
    found = explain(base_conn, question, hits)
    assert found.unknown == ["zzzunknown"]
    assert {term.token for term in found.terms} == {"parse", "the", "header"}
    assert [term.frequency for term in found.terms] == sorted(term.frequency for term in found.terms)
    idf = {term.token: term.idf for term in found.terms}
    average = sum(map(len, base.words.values())) / len(base.words)
    for hit in hits:
        matched = found.matched[hit.chunk_id]
        assert set(matched) == base.words[hit.chunk_id] & idf.keys()
        if hit.lexical_score is not None:
            norm = 2.2 / (1 + 1.2 * (0.25 + 0.75 * len(base.words[hit.chunk_id]) / average))
            assert hit.lexical_score == pytest.approx(norm * sum(idf[token] for token in matched))
        parts = [
            weight / (found.settings["rrf_k"] + rank)
            for weight, rank in (
                (found.settings["vector_weight"], hit.vector_rank),
                (found.settings["lexical_weight"], hit.lexical_rank),
            )
            if rank is not None
        ]
        assert hit.score == pytest.approx(sum(parts))
    assert found.milliseconds.keys() == {"vectors", "words", "all of it"}
    assert all(took > 0 for took in found.milliseconds.values())


def test_an_example_finds_what_is_near_it_without_itself_and_its_copies(
    base: CodeBase, base_conn: psycopg.Connection
) -> None:
    generation = searchable(base_conn)
    pair = min(base.copies, key=sorted)
    for chunk_id in (*sorted(pair), *sorted(base.code)[::150]):
        source, path, first, last, _ = base.code[chunk_id].places[0]
        example = example_at(base_conn, f"{path}:{first}", source)
        inside = [
            (e - s, -s, i)
            for i, code in base.code.items()
            for o, p, s, e, _ in code.places
            if (o, p) == (source, path) and s <= first <= e
        ]
        assert example.chunk_id == min(inside)[2]
        if example.chunk_id != chunk_id:
            continue  # a class begins where its first line does; something smaller may too
        assert (example.source, example.path, example.start_line, example.end_line) == (source, path, first, last)
        for collapse in (True, False):
            limits = Question(k=12, collapse=collapse, exact=True)
            hits = find(base_conn, by_example(base_conn, limits, example, generation))
            vector = base.encoder.vector(base.code[chunk_id].content)
            nearest = base_conn.execute(
                "SELECT chunk_id FROM pgembed.nearest(%s, 5000, exact => true)", (vector,)
            ).fetchall()
            kept = [chunk_id]
            for (other,) in nearest:
                above = kept if collapse else kept[:1]
                if other != chunk_id and not any(frozenset((other, one)) in base.copies for one in above):
                    kept.append(other)
            assert [hit.chunk_id for hit in hits] == kept[1:13]


def test_a_place_may_be_written_from_the_sources_name_or_root(base: CodeBase, base_conn: psycopg.Connection) -> None:
    rows = base_conn.execute(
        """SELECT s.name, s.root, l.path, l.start_line FROM pgembed.chunk_locations l
             JOIN pgembed.sources s ON s.id = l.source_id ORDER BY l.chunk_id LIMIT 5"""
    ).fetchall()
    for name, root, path, line in rows:
        wanted = example_at(base_conn, f"{path}:{line}", name)
        assert example_at(base_conn, f"{name}/{path}:{line}") == wanted
        assert example_at(base_conn, f"{root}/{path}:{line}") == wanted
        with pytest.raises(SearchError, match="No chunk stands"):
            example_at(base_conn, f"/elsewhere/{path}:{line}")


def test_a_place_where_nothing_stands_is_refused_with_what_is_near(
    base: CodeBase, base_conn: psycopg.Connection
) -> None:
    with pytest.raises(SearchError, match=r"No chunk stands at decoder\.py:99999") as caught:
        example_at(base_conn, "decoder.py:99999")
    last = max((e, -s) for code in base.code.values() for _, path, s, e, _ in code.places if path == "decoder.py")
    assert f"decoder.py:{-last[1]}-{last[0]} " in str(caught.value.remedy)
    with pytest.raises(SearchError, match="No chunk stands") as caught:
        example_at(base_conn, "src/nowhere.py:1")
    assert "No file called nowhere.py" in str(caught.value.remedy)
    with pytest.raises(SearchError, match="may be a place in 2 files"):
        example_at(base_conn, _differing_place(base))
    for wrong in ("decoder.py", "decoder.py:", ":3", "decoder.py:-1", "a\0b.py:1", "\udcff.py:1", "x" * 10_000):
        with pytest.raises(SearchError, match="is not a place in a file"):
            example_at(base_conn, wrong)
    for hostile in ("'; DROP TABLE x; --:1", "%:1", "_ecoder.py:1", "decoder%:1", "\\:1"):
        with pytest.raises(SearchError, match="No chunk stands"):
            example_at(base_conn, hostile)


def _differing_place(base: CodeBase) -> str:
    """Return a line of message.py at which the original and its fork hold different code."""
    at = {
        (source, line): min((e - s, -s, i) for i, c in base.code.items() for o, p, s, e, _ in c.places
                            if (o, p) == (source, "message.py") and s <= line <= e)[2]
        for source in ("email", "fork")
        for line in _first_lines(base)
    }  # fmt: skip
    return next(f"message.py:{line}" for line in _first_lines(base) if at["email", line] != at["fork", line])


def _first_lines(base: CodeBase) -> list[int]:
    """Return the first lines of what stands in message.py."""
    return sorted({s for c in base.code.values() for _, p, s, _, _ in c.places if p == "message.py"})


def test_hits_have_the_fields_of_the_sql_function(base: CodeBase, base_conn: psycopg.Connection) -> None:
    with base_conn.cursor(row_factory=class_row(Hit)) as cursor:
        rows = cursor.execute(
            "SELECT * FROM pgembed.hybrid_search(NULL, 5, ARRAY['parse', 'header'], kind => 'method')"
        ).fetchall()
    question = replace(Question(k=5, kind="method").by_text("parse header", "lexical"), symbol=None)
    assert rows == find(base_conn, question)
    assert len(rows) == 5
