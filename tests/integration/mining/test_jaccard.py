"""The Jaccard join against brute force: no pair too many, none too few, whatever the sets."""

import ast
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pgembed.tokens import tokens

AddSets = Callable[[Iterable[frozenset[int]]], list[int]]
Pairs = dict[tuple[int, int], tuple[int, float]]


def brute_force(sets: dict[int, frozenset[int]], thousandths: int, min_tokens: int = 0) -> Pairs:
    found = {}
    for (i, a), (j, b) in combinations(sorted(sets.items()), 2):
        common = len(a & b)
        union = len(a) + len(b) - common
        if common and min(len(a), len(b)) >= min_tokens and Fraction(common, union) >= Fraction(thousandths, 1000):
            found[i, j] = (common, common / union)
    return found


def _rows(conn: psycopg.Connection, statement: str, *parameters: object) -> Pairs:
    rows = conn.execute(statement, parameters).fetchall()
    found = {(a, b): (n, j) for a, b, n, j in rows}
    assert len(found) == len(rows), "a pair came twice"
    return found


def all_pairs(conn: psycopg.Connection, thousandths: int, min_tokens: int = 0) -> Pairs:
    return _rows(conn, "SELECT * FROM pgembed.jaccard_pairs(%s, %s)", thousandths, min_tokens)


def prepare(conn: psycopg.Connection, thousandths: int) -> None:
    conn.execute("SELECT pgembed.jaccard_rank_tokens()")
    conn.execute("SELECT pgembed.jaccard_prepare(%s)", (thousandths,))


@st.composite
def overlapping_sets(draw: st.DrawFn) -> list[frozenset[int]]:
    """Sets that are often alike: copies of a few, with some tokens added and some removed."""
    vocabulary = draw(st.integers(1, 60))
    members = st.frozensets(st.integers(1, vocabulary), max_size=40)
    seeds = draw(st.lists(members, min_size=1, max_size=4))
    sets = list(seeds)
    for _ in range(draw(st.integers(0, 14))):
        base = draw(st.sampled_from(seeds))
        sets.append(base ^ draw(st.frozensets(st.integers(1, vocabulary + 5), max_size=5)))
    return sets


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sets=overlapping_sets(),
    thousandths=st.sampled_from([300, 333, 334, 400, 500, 501, 600, 667, 700, 750, 800, 900, 950, 1000]),
    min_tokens=st.sampled_from([0, 0, 3]),
    slice_size=st.sampled_from([1, 3, 1000]),
)
@example(sets=[frozenset(), frozenset()], thousandths=300, min_tokens=0, slice_size=1)
@example(
    sets=[frozenset({1}), frozenset({1}), frozenset({2}), frozenset({1, 2})],
    thousandths=500,
    min_tokens=0,
    slice_size=1,
)
@example(sets=[frozenset(range(1, 8)), frozenset(range(1, 11))], thousandths=700, min_tokens=0, slice_size=1)
@example(sets=[frozenset(range(1, 8)), frozenset(range(1, 11))], thousandths=701, min_tokens=0, slice_size=1)
def test_random_sets_equal_brute_force(
    conn: psycopg.Connection,
    add_sets: AddSets,
    sets: list[frozenset[int]],
    thousandths: int,
    min_tokens: int,
    slice_size: int,
) -> None:
    conn.execute("TRUNCATE pgembed.code_chunks, pgembed.jaccard_ranks CASCADE")
    ids = add_sets(sets)
    prepare(conn, thousandths)
    expected = brute_force(dict(zip(ids, sets, strict=True)), thousandths, min_tokens)
    assert all_pairs(conn, thousandths, min_tokens) == expected
    sliced = _rows(
        conn,
        """SELECT j.* FROM pgembed.jaccard_slices(%s) s,
                  LATERAL pgembed.jaccard_join(%s, %s, s.low_n, s.low_id, s.high_n, s.high_id) j""",
        slice_size, thousandths, min_tokens,
    )  # fmt: skip
    assert sliced == expected
    some = ids[::2]
    touched = {pair: value for pair, value in expected.items() if set(pair) & set(some)}
    assert _rows(conn, "SELECT * FROM pgembed.jaccard_pairs_of(%s, %s, %s)", some, thousandths, min_tokens) == touched


def test_sets_of_thousands_equal_brute_force(conn: psycopg.Connection, add_sets: AddSets) -> None:
    # 16,000 is where sparsevec ends; the sketch of 256 bits is long full
    sets = [
        frozenset(range(start, start + size)) for size in (3000, 15_999, 16_000, 16_001, 20_000) for start in (1, 400)
    ]
    ids = add_sets(sets)
    prepare(conn, 500)
    by_id = dict(zip(ids, sets, strict=True))
    for thousandths in (500, 800, 950):
        expected = brute_force(by_id, thousandths)
        assert expected
        assert all_pairs(conn, thousandths) == expected
        probed = _rows(conn, "SELECT * FROM pgembed.jaccard_pairs_of(%s, %s)", ids, thousandths)
        assert probed == expected


@pytest.fixture(scope="module")
def standard_library() -> list[frozenset[str]]:
    found = set()
    root = Path(sysconfig.get_path("stdlib"))
    for name in (
        "argparse",
        "ast",
        "dataclasses",
        "datetime",
        "enum",
        "logging/__init__",
        "pathlib",
        "typing",
        "zipfile",
    ):
        files = [root / f"{name}.py"] if (root / f"{name}.py").exists() else sorted((root / name).rglob("*.py"))
        for file in files:
            text = file.read_text(encoding="utf-8")
            lines = text.splitlines()
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef):
                    found.add(tokens("\n".join(lines[node.lineno - 1 : node.end_lineno])))
    return sorted(found, key=sorted)[:600]


@pytest.mark.parametrize("thousandths", [300, 500, 700, 800, 950])
def test_real_functions_equal_brute_force(
    conn: psycopg.Connection, add_sets: AddSets, standard_library: list[frozenset[str]], thousandths: int
) -> None:
    numbers = {word: number for number, word in enumerate(sorted(set().union(*standard_library)), 1)}
    sets = [frozenset(numbers[word] for word in words) for words in standard_library]
    ids = add_sets(sets)
    prepare(conn, thousandths)
    expected = brute_force(dict(zip(ids, sets, strict=True)), thousandths)
    assert expected or thousandths == 950
    assert all_pairs(conn, thousandths) == expected


def test_probing_below_the_prepared_threshold_is_refused(conn: psycopg.Connection, add_sets: AddSets) -> None:
    ids = add_sets([frozenset(range(1, 31))])
    prepare(conn, 800)
    with pytest.raises(psycopg.errors.RaiseException, match=r"higher threshold than 0\.5"):
        conn.execute("SELECT * FROM pgembed.jaccard_pairs_of(%s, 500)", (ids,))


def test_the_plan_has_its_fences(conn: psycopg.Connection) -> None:
    """Two functions whose plan was seen to cost ten to a hundred times more without these."""
    fences = {
        "jaccard_candidates": {"OFFSET 0": 3, "ORDER BY s.rank": 2, "generate_series": 1},
        "jaccard_join": {"AS MATERIALIZED": 2, "OFFSET 0": 1},
        "jaccard_pairs_of": {"AS MATERIALIZED": 3, "OFFSET 0": 2, "generate_series": 0},
    }
    for name, expected in fences.items():
        row = conn.execute("SELECT prosrc, proconfig FROM pg_proc WHERE proname = %s", (name,)).fetchone()
        assert row is not None
        assert {fence: row[0].count(fence) for fence in expected} == expected
        assert {"enable_mergejoin=off", "jit=off"} <= set(row[1])


def test_the_order_of_tokens_is_that_of_frequencies(conn: psycopg.Connection, add_sets: AddSets) -> None:
    """Tokens of three chunks or fewer first, the newest before the others; then the rarer before the more frequent."""
    sets = [frozenset({i % 5 + 1, i % 40 + 10, 1000 + i // 3, 2000 + i, 3000 - i}) for i in range(300)]
    ids = dict(zip(add_sets(sets), sets, strict=True))
    prepare(conn, 500)
    add_sets([sets[0] | {4000}])  # comes after the ranks, with a token of its own
    assert conn.execute("SELECT pgembed.jaccard_rank_tokens(), pgembed.jaccard_prepare(500)").fetchone() == (0, 1)
    holding = Counter(token for members in sets for token in members)
    stored = conn.execute("SELECT chunk_id, n, prefix FROM pgembed.jaccard_sets").fetchall()
    assert len(stored) == 301
    ranks: dict[int, int] = dict(conn.execute("SELECT token_id, rank FROM pgembed.jaccard_ranks").fetchall())
    assert ranks.keys() == {token for token, chunks in holding.items() if chunks > 3}
    token_of = {rank: token for token, rank in ranks.items()}
    for chunk_id, n, prefix in stored:
        members = ids.get(chunk_id, sets[0] | {4000})
        order = sorted(members, key=lambda token: (holding[token] if holding[token] > 3 else 0, -token))
        assert n == len(members)
        assert [token_of.get(place, -place) for place in prefix] == order[: n - (n + 1) // 2 + 1]


def test_slices_take_about_as_long_and_hold_every_set(conn: psycopg.Connection, add_sets: AddSets) -> None:
    add_sets([frozenset(range(1, n % 97 + 2)) for n in range(500)])
    prepare(conn, 900)
    sizes = [row[0] for row in conn.execute("SELECT cardinality(token_ids) FROM pgembed.code_chunks ORDER BY 1, id")]
    slices = conn.execute("SELECT low_n, high_n, sets FROM pgembed.jaccard_slices(100) ORDER BY ordinal").fetchall()
    assert len(slices) == 5
    assert sum(held for _, _, held in slices) == 500
    weights, start = [], 0
    for _, high_n, held in slices:
        part = sizes[start : start + held]
        weights.append(sum(n + 20 for n in part))
        start += held
        assert part[-1] == high_n
    assert max(weights) - min(weights) <= 2 * (97 + 20)
