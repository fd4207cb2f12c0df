"""Pairs and sets that were made before the order of frequent tokens (0012) are built upon, both ways."""

from itertools import combinations

import psycopg
from fixtures_token_sets import add_token_sets, look_alikes

from pgembed.cli.invariants import violations
from pgembed.db.connection import connect
from pgembed.db.migrations import downgrade, upgrade
from pgembed.mining.pairs import find_pairs

_T = 500


def all_pairs(conn: psycopg.Connection) -> set[tuple[int, int]]:
    sets = {i: set(tokens) for i, tokens in conn.execute("SELECT id, token_ids FROM pgembed.code_chunks").fetchall()}
    pairs = combinations(sorted(sets), 2)
    return {(a, b) for a, b in pairs if 1000 * len(sets[a] & sets[b]) >= _T * len(sets[a] | sets[b])}


def stored(conn: psycopg.Connection) -> set[tuple[int, int]]:
    return {(a, b) for a, b in conn.execute("SELECT chunk_a, chunk_b FROM pgembed.candidate_pairs").fetchall()}


def test_sets_of_an_older_revision_are_built_upon(empty_database_url: str) -> None:
    upgrade(empty_database_url, "0011")
    with connect(empty_database_url) as conn:
        add_token_sets(conn, look_alikes(150, seed=1))
        conn.execute("SELECT pgembed.jaccard_rank_tokens(), pgembed.jaccard_prepare(%s)", (_T,))
        conn.execute(
            """INSERT INTO pgembed.candidate_pairs (chunk_a, chunk_b, intersection, jaccard)
               SELECT chunk_a, chunk_b, intersection, jaccard FROM pgembed.jaccard_pairs(%s)""",
            (_T,),
        )
        conn.execute(
            """INSERT INTO pgembed.pair_runs (mode, state, min_jaccard, min_tokens, sets, finished_at)
               VALUES ('full', 'finished', 0.5, 0, 150, now())"""
        )
        upgrade(empty_database_url)
        add_token_sets(conn, [members | {500 + n % 3} for n, members in enumerate(look_alikes(20, seed=2))])
        add_token_sets(conn, look_alikes(10, seed=1), first=1)
        assert find_pairs(conn).chunks == 30
        assert stored(conn) == all_pairs(conn)
        assert not [problem.what for problem in violations(conn) if "pgembed pairs" in problem.remedy]


def test_one_step_back_and_forth_keeps_pairs_and_sets(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    with connect(empty_database_url) as conn:
        add_token_sets(conn, look_alikes(100, seed=3))
        find_pairs(conn)
        functions = """SELECT oid::regprocedure::text, prosrc, proconfig, prosecdef FROM pg_proc
                        WHERE pronamespace = 'pgembed'::regnamespace"""
        after = set(map(str, conn.execute(functions).fetchall()))
        downgrade(empty_database_url, "0012")
        before = set(map(str, conn.execute(functions).fetchall()))
        found = conn.execute("SELECT chunk_a, chunk_b FROM pgembed.jaccard_pairs(%s)", (_T,)).fetchall()
        assert set(found) == stored(conn) == all_pairs(conn)
        upgrade(empty_database_url)
        assert set(map(str, conn.execute(functions).fetchall())) == after != before
        add_token_sets(conn, look_alikes(10, seed=3), first=1)
        assert find_pairs(conn).chunks == 10
        assert stored(conn) == all_pairs(conn)


def test_the_way_back_leaves_pairs_and_makes_its_sets_anew(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    with connect(empty_database_url) as conn:
        add_token_sets(conn, look_alikes(100, seed=3))
        find_pairs(conn)
        expected = all_pairs(conn)
        downgrade(empty_database_url, "0011")
        assert stored(conn) == expected
        conn.execute("SELECT pgembed.jaccard_rank_tokens(), pgembed.jaccard_prepare(%s)", (_T,))
        found = conn.execute("SELECT chunk_a, chunk_b FROM pgembed.jaccard_pairs(%s)", (_T,)).fetchall()
        assert set(found) == expected
        upgrade(empty_database_url)
        assert find_pairs(conn, full=True).pairs == len(expected)
