"""The search by words against BM25 computed apart from it, on real code."""

import math
import random
from collections import Counter
from typing import Any

import psycopg
import pytest
from fixtures_hybrid import CodeBase

from pgembed.tokens import tokens

FILTERS: list[dict[str, str]] = [
    {},
    {"kind": "class"},
    {"path": "mime/*"},
    {"path": "message.py", "kind": "method"},
    {"source": "json"},
    {"path": "nowhere/*"},
    {"language": "restructuredtext", "kind": "method"},
    {"language": "python", "source": "email", "path": "*er.py", "kind": "function"},
]
QUERIES = (
    "parse the header of a message", "decode json string", "self return", "the", "the of to a is and in",
    "base64 encode binary payload", "_header_value_parser AttributeError", "é 変数 nothing", "kurtosis",
)  # fmt: skip


def _bm25(base: CodeBase, text: str, *, k1: float = 1.2, b: float = 0.75) -> dict[int, float]:
    """Score every chunk by the formula, from the texts alone."""
    frequency = Counter(word for words in base.words.values() for word in words)
    average = sum(map(len, base.words.values())) / len(base.words)
    size = len(base.words)
    scores = {}
    for chunk_id, words in base.words.items():
        shared = words & tokens(text)
        idf = (math.log(1 + (size - frequency[word] + 0.5) / (frequency[word] + 0.5)) for word in shared)
        if shared:
            scores[chunk_id] = sum(idf) * (k1 + 1) / (1 + k1 * (1 - b + b * len(words) / average))
    return scores


def _matches(conn: psycopg.Connection, text: str, k: int, **filters: str) -> list[tuple[int, float]]:
    named = "".join(f", {name} => %({name})s" for name in filters)
    statement: Any = f"SELECT chunk_id, score FROM pgembed.lexical_matches(%(tokens)s, %(k)s{named})"
    return conn.execute(statement, {"tokens": sorted(tokens(text)), "k": k, **filters}).fetchall()


def _set(conn: psycopg.Connection, **settings: float) -> None:
    for name, value in settings.items():
        changed = conn.execute("UPDATE pgembed.search_settings SET value = %s WHERE name = %s", (value, name))
        assert changed.rowcount == 1


def _docstrings(base: CodeBase, count: int) -> list[str]:
    texts = sorted(code.docstring for code in base.code.values() if code.docstring)
    return random.Random(1).sample(texts, count)  # noqa: S311 - a sample, not a secret


def test_a_lexical_document_holds_the_words_of_body_docstring_and_symbol(
    base: CodeBase, base_conn: psycopg.Connection
) -> None:
    rows = base_conn.execute(
        "SELECT chunk_id, ARRAY(SELECT t.token FROM pgembed.tokens t WHERE t.id = ANY (d.token_ids)),"
        "       d.length, d.described"
        "  FROM pgembed.lexical_documents d"
    ).fetchall()
    assert {chunk_id: set(words) for chunk_id, words, _, _ in rows} == base.words
    assert all(length == len(words) and described for _, words, length, described in rows)
    counted = Counter(word for words in base.words.values() for word in words)
    assert dict(base_conn.execute("SELECT token, lexical_frequency FROM pgembed.tokens")) == counted
    assert base_conn.execute("SELECT documents, average_length FROM pgembed.lexical_statistics").fetchone() == (
        len(base.words),
        pytest.approx(sum(map(len, base.words.values())) / len(base.words)),
    )


@pytest.mark.parametrize("settings", [{}, {"bm25_k1": 0.0}, {"bm25_k1": 2.5, "bm25_b": 0.0}, {"bm25_b": 1.0}])
def test_scores_and_order_are_those_of_the_formula(
    base: CodeBase, base_conn: psycopg.Connection, settings: dict[str, float]
) -> None:
    formula = {name.removeprefix("bm25_"): value for name, value in settings.items()}
    with base_conn.transaction(force_rollback=True):
        _set(base_conn, lexical_candidates=1e6, **settings)
        for text in (*QUERIES, *_docstrings(base, 20)):
            expected = _bm25(base, text, **formula)
            found = _matches(base_conn, text, 10_000)
            assert dict(found) == pytest.approx(expected, abs=1e-9)
            assert found == sorted(found, key=lambda row: (-row[1], row[0]))
            # fewer are the first of all of them: no tie is broken otherwise
            assert _matches(base_conn, text, 7) == found[:7]


@pytest.mark.parametrize("filters", FILTERS)
def test_k_come_back_whenever_k_share_a_word_and_pass(
    base: CodeBase, base_conn: psycopg.Connection, filters: dict[str, str]
) -> None:
    assert len(base.words) > 500
    with base_conn.transaction(force_rollback=True):
        _set(base_conn, lexical_candidates=100)  # far fewer than the frequent words would give
        for text in QUERIES:
            expected = {i: score for i, score in _bm25(base, text).items() if base.passes(i, **filters)}
            for k in (1, 10, 150, 5000):
                found = _matches(base_conn, text, k, **filters)
                assert len(found) == min(k, len(expected))
                assert {i: expected[i] for i, _ in found} == pytest.approx(dict(found), abs=1e-9)


def test_a_budget_costs_few_of_the_best(base: CodeBase, base_conn: psycopg.Connection) -> None:
    texts = _docstrings(base, 60)
    lost = 0
    with base_conn.transaction(force_rollback=True):
        _set(base_conn, lexical_candidates=200)  # a fifth of all chunks
        for text in texts:
            scores = _bm25(base, text)
            best = {i for i, _ in sorted(scores.items(), key=lambda row: (-row[1], row[0]))[:10]}
            lost += len(best - {i for i, _ in _matches(base_conn, text, 10)})
    assert lost / (10 * len(texts)) < 0.05


def test_documents_are_scored_by_the_rarest_words_through_the_index(
    base: CodeBase, base_conn: psycopg.Connection
) -> None:
    with base_conn.transaction(force_rollback=True):
        _set(base_conn, lexical_candidates=100)
        row = base_conn.execute(
            "SELECT terms, idfs, needed, is_exact FROM pgembed.lexical_strategy(%s, 10, NULL, NULL, NULL, NULL, false)",
            (["payload", "self", "return", "the", "base"],),
        ).fetchone()
        assert row is not None
        terms, idfs, needed, is_exact = row
        assert idfs == sorted(idfs, reverse=True)
        assert (len(terms), is_exact) == (5, False)
        frequency = dict(base_conn.execute("SELECT id, lexical_frequency FROM pgembed.tokens").fetchall())
        held = [frequency[term] for term in terms]
        assert sum(held[:needed]) <= 100 < sum(held[: needed + 1])
        for text in ("payload base the self", "the", "self return"):
            plan = "\n".join(
                line for (line,) in base_conn.execute("SELECT * FROM pgembed.lexical_plan(%s)", (text.split(),))
            )
            assert "lexical_documents_token_ids_idx" in plan or "lexical_documents_length_idx" in plan, plan
            assert "Seq Scan" not in plan


def test_where_even_the_rarest_word_is_frequent_the_shortest_are_scored(
    base: CodeBase, base_conn: psycopg.Connection
) -> None:
    with base_conn.transaction(force_rollback=True):
        _set(base_conn, lexical_candidates=100)
        scores = _bm25(base, "self")
        assert len(scores) > 300
        expected = sorted(scores.items(), key=lambda row: (-row[1], row[0]))[:50]
        found = _matches(base_conn, "self", 50)  # one word: short is good
        assert [i for i, _ in found] == [i for i, _ in expected]
        assert dict(found) == pytest.approx(dict(expected))


def test_equal_documents_come_in_the_order_of_ids(base_conn: psycopg.Connection) -> None:
    with base_conn.transaction(force_rollback=True):
        base_conn.execute(
            "WITH new AS ("
            "  INSERT INTO pgembed.code_chunks (sha256, language, kind, content, body, token_ids, line_count)"
            "  SELECT sha256(n::text::bytea), 'x', 'function', n::text, n::text, '{}', 1 FROM generate_series(1, 40) n"
            "  RETURNING id)"
            " INSERT INTO pgembed.lexical_documents (chunk_id, token_ids)"
            " SELECT new.id, (SELECT array_agg(t.id ORDER BY t.id) FROM pgembed.tokens t"
            "                  WHERE t.token IN ('kind', 'self'))"
            "   FROM new"
        )
        found = _matches(base_conn, "self kind", 40, language="x")
        assert len({score for _, score in found}) == 1
        assert [i for i, _ in found] == sorted(i for i, _ in found)
        assert _matches(base_conn, "self kind", 13, language="x") == found[:13]


def test_settings_are_bounded(base_conn: psycopg.Connection) -> None:
    for name, value in (("bm25_b", 1.5), ("lexical_weight", -1), ("lexical_candidates", 1), ("rrf_k", "NaN")):
        with pytest.raises(psycopg.errors.CheckViolation), base_conn.transaction():
            _set(base_conn, **{name: float(value)})


def test_settings_of_the_session_are_as_before(base_conn: psycopg.Connection) -> None:
    names = ["enable_seqscan", "jit", "max_parallel_workers_per_gather", "search_path"]
    read = "SELECT array_agg(current_setting(name) ORDER BY name) FROM unnest(%s::text[]) name"
    before = base_conn.execute(read, (names,)).fetchone()
    with base_conn.transaction():
        _matches(base_conn, "parse header", 10)
        base_conn.execute("SELECT * FROM pgembed.lexical_plan(%s)", (["parse"],))
        assert base_conn.execute(read, (names,)).fetchone() == before
