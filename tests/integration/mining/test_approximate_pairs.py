"""Approximate pairs: each is true, few are missing, what may be missing is said, and they never pass for exact."""

import ast
import hashlib
import json
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from itertools import combinations
from math import sqrt
from pathlib import Path

import psycopg
import pytest
from fixtures_cli import pgembed
from fixtures_token_sets import add_token_sets, look_alikes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgembed.db.connection import connect
from pgembed.errors import MiningError
from pgembed.mining import approximate
from pgembed.mining import pairs as module
from pgembed.mining.bands import Bands
from pgembed.mining.pairs import find_pairs
from pgembed.tokens import tokens

Pairs = dict[tuple[int, int], tuple[int, float]]
PRIME = 2**31 - 1


def brute_force(sets: dict[int, frozenset[int]], thousandths: int = 500) -> Pairs:
    found = {}
    for (i, a), (j, b) in combinations(sorted(sets.items()), 2):
        common = len(a & b)
        union = len(a) + len(b) - common
        if common and 1000 * common >= thousandths * union:
            found[i, j] = (common, common / union)
    return found


def stored(conn: psycopg.Connection) -> Pairs:
    rows = conn.execute("SELECT chunk_a, chunk_b, intersection, jaccard FROM pgembed.candidate_pairs").fetchall()
    return {(a, b): (common, jaccard) for a, b, common, jaccard in rows}


def runs(conn: psycopg.Connection) -> list[tuple[str, bool]]:
    return conn.execute("SELECT mode, approximate FROM pgembed.pair_runs ORDER BY id").fetchall()


def standard_library() -> list[frozenset[int]]:
    """Token sets of real functions."""
    words: set[frozenset[str]] = set()
    root = Path(sysconfig.get_path("stdlib"))
    for name in ("argparse", "ast", "datetime", "enum", "pathlib", "tarfile", "typing", "zipfile", "unittest", "email"):
        files = [root / f"{name}.py"] if (root / f"{name}.py").exists() else sorted((root / name).rglob("*.py"))
        for file in files:
            text = file.read_text(encoding="utf-8")
            lines = text.splitlines()
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef):
                    words.add(tokens("\n".join(lines[node.lineno - 1 : node.end_lineno])))
    numbers = {word: number for number, word in enumerate(sorted(set().union(*words)), 1)}
    return [frozenset(numbers[w] for w in one) for one in sorted(words, key=sorted)][:1000]


def test_hashes_are_the_same_everywhere(conn: psycopg.Connection) -> None:
    """Values worked out from sha256 beside the server, so that no server and no version may give others."""

    def number(text: str) -> int:
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])

    def coefficient(purpose: str, place: int) -> int:
        return number(f"pgembed.minhash.{purpose}.{place}") % (PRIME - 1) + 1

    sets = add_token_sets(conn, [frozenset(range(30)), frozenset({7}), frozenset(range(20, 90))])
    for rows, bands in ((1, 1), (4, 47), (3, 6), (16, 2), (5, 7)):
        expected = {}
        for chunk, members in sets.items():
            hashes = [number(f"word {m}") % PRIME for m in members]
            least = [
                min((coefficient("a", i) * h + coefficient("b", i)) % PRIME for h in hashes)
                for i in range(1, rows * bands + 1)
            ]
            folded = [least[i] * coefficient("fold", i + 1) % PRIME for i in range(rows * bands)]
            expected[chunk] = [sum(folded[start : start + rows]) % PRIME for start in range(0, rows * bands, rows)]
        found = conn.execute("SELECT * FROM pgembed.minhash_signatures(%s, %s, %s)", (list(sets), rows, bands))
        assert dict(found.fetchall()) == expected


def test_the_formula_of_sql_is_that_of_python(conn: psycopg.Connection) -> None:
    for bands in (Bands(1, 1), Bands(4, 47), Bands(6, 31)):
        for thousandths in range(0, 1001, 50):
            row = conn.execute(
                "SELECT pgembed.band_recall(%s::float8, %s, %s)", (thousandths / 1000, bands.rows, bands.bands)
            ).fetchone()
            assert row is not None
            assert row[0] == pytest.approx(bands.recall(thousandths / 1000), abs=1e-12)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sets=st.lists(st.frozensets(st.integers(1, 25), max_size=15), min_size=1, max_size=14),
    thousandths=st.sampled_from([300, 334, 500, 667, 700, 1000]),
    slice_size=st.sampled_from([1, 3, 1000]),
    most=st.sampled_from([1, 2, 1000]),
)
def test_pairs_are_those_that_share_a_bucket(
    conn: psycopg.Connection, sets: list[frozenset[int]], thousandths: int, slice_size: int, most: int
) -> None:
    conn.execute("TRUNCATE pgembed.code_chunks, pgembed.jaccard_ranks, pgembed.tokens CASCADE")
    by_id = add_token_sets(conn, sets)
    conn.execute("SELECT pgembed.jaccard_rank_tokens()")
    conn.execute("SELECT pgembed.jaccard_prepare(%s)", (thousandths,))
    conn.execute("SELECT pgembed.jaccard_sign(2, 6)")
    conn.execute("SELECT * FROM pgembed.jaccard_crowd(%s)", (most,))
    buckets = dict(conn.execute("SELECT chunk_id, buckets FROM pgembed.jaccard_signatures").fetchall())
    true = brute_force(by_id, thousandths)
    expected = {pair: value for pair, value in true.items() if set(buckets[pair[0]]) & set(buckets[pair[1]])}
    sliced = conn.execute(
        """SELECT DISTINCT j.* FROM pgembed.jaccard_slices(%s) s,
                  LATERAL pgembed.jaccard_band_join(%s, 0, %s, s.low_n, s.low_id, s.high_n, s.high_id) j""",
        (slice_size, thousandths, most),
    ).fetchall()
    whole = conn.execute("SELECT * FROM pgembed.jaccard_band_pairs(%s, 0, %s)", (thousandths, most)).fetchall()
    some = list(by_id)[::2]
    of = conn.execute(
        "SELECT * FROM pgembed.jaccard_band_pairs_of(%s, %s, 0, %s)", (some, thousandths, most)
    ).fetchall()
    assert sorted(sliced) == sorted(whole)
    found = {(a, b): (common, jaccard) for a, b, common, jaccard in whole}
    assert len(found) == len(whole)
    touched = {(a, b): (common, jaccard) for a, b, common, jaccard in of}
    assert found.items() <= expected.items()
    assert touched == {pair: value for pair, value in found.items() if set(pair) & set(some)}
    if most == 1000:
        assert found == expected


@pytest.mark.parametrize("source", [lambda: look_alikes(1000), standard_library], ids=["random", "real"])
@pytest.mark.parametrize("min_jaccard", [0.5, 0.7])
def test_few_are_missing_and_none_is_wrong(
    conn: psycopg.Connection, source: Callable[[], list[frozenset[int]]], min_jaccard: float
) -> None:
    sets = add_token_sets(conn, source())
    true = brute_force(sets, round(min_jaccard * 1000))
    report = find_pairs(conn, min_jaccard=min_jaccard, approximate=True)
    found = stored(conn)
    assert report.pairs == report.pairs_found == len(found)
    assert found.items() <= true.items()
    bands = Bands(4, 47) if min_jaccard == 0.5 else Bands(6, 31)
    assert report.expected_recall == pytest.approx(bands.recall(min_jaccard))
    # four standard deviations, three times as wide for what pairs of a cluster have in common
    chances = [bands.recall(jaccard) for _, jaccard in true.values()]
    deviation = sqrt(sum(chance * (1 - chance) for chance in chances))
    assert len(found) >= sum(chances) - 12 * deviation
    assert len(true) > 100
    copies = {pair for pair, (_, jaccard) in true.items() if jaccard >= 0.8}
    assert copies
    assert copies <= found.keys()
    assert report.copy_miss is not None
    assert report.copy_miss <= 1e-4


def test_the_run_says_what_it_may_have_missed(conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = add_token_sets(conn, look_alikes(600))
    true = brute_force(sets)
    # all chunks are the sample: what is measured is then what is
    monkeypatch.setattr(approximate, "_SAMPLE", 1000)
    report = find_pairs(conn, approximate=True)
    assert report.approximate
    assert (report.recall_chunks, report.recall_pairs) == (600, len(true))
    assert report.measured_recall == pytest.approx(len(stored(conn)) / len(true))
    row = conn.execute(
        """SELECT approximate, band_rows, bands, expected_recall, measured_recall, recall_chunks, recall_pairs
             FROM pgembed.pair_runs"""
    ).fetchall()
    assert row == [(True, 4, 47, report.expected_recall, report.measured_recall, 600, len(true))]


def test_measured_recall_sees_what_is_missing(conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """With far too few bands most pairs at the threshold are missing, and the figure says so."""
    sets = add_token_sets(conn, look_alikes(600))
    monkeypatch.setattr(module, "choose_bands", lambda *_: Bands(6, 2))
    monkeypatch.setattr(approximate, "choose_bands", lambda *_: Bands(6, 2))
    report = find_pairs(conn, approximate=True)
    truly = len(stored(conn)) / len(brute_force(sets))
    assert truly < 0.7
    assert report.measured_recall == pytest.approx(truly, abs=0.15)
    assert report.expected_recall == pytest.approx(1 - (1 - 0.5**6) ** 2)


def test_the_order_of_insertion_changes_nothing(conn: psycopg.Connection) -> None:
    sets = look_alikes(400) + [frozenset(range(9))] * 5
    outcomes = []
    members = sorted(set().union(*sets))
    for order, names in ((sets, members), (sets[::-1], members[::-1]), (sorted(sets, key=sorted), members[7::2])):
        conn.execute("TRUNCATE pgembed.code_chunks, pgembed.tokens RESTART IDENTITY CASCADE")
        add_token_sets(conn, order, names=list(dict.fromkeys([*names, *members])))
        find_pairs(conn, approximate=True, full=True)
        outcomes.append(
            conn.execute(
                """SELECT least(a.sha256, b.sha256), greatest(a.sha256, b.sha256), p.intersection, p.jaccard
                     FROM pgembed.candidate_pairs p
                     JOIN pgembed.code_chunks a ON a.id = p.chunk_a JOIN pgembed.code_chunks b ON b.id = p.chunk_b
                    ORDER BY 1, 2"""
            ).fetchall()
        )
    assert outcomes[0]
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_new_chunks_give_what_a_full_run_gives(conn: psycopg.Connection) -> None:
    sets = look_alikes(500)
    ids = list(add_token_sets(conn, sets[:450]))
    find_pairs(conn, approximate=True)
    conn.execute("DELETE FROM pgembed.code_chunks WHERE id = ANY(%s)", (ids[::50],))
    conn.execute(
        """UPDATE pgembed.code_chunks c SET token_ids = o.token_ids
             FROM pgembed.code_chunks o WHERE (o.id, c.id) = (%s, %s)""",
        (ids[3], ids[1]),
    )
    add_token_sets(conn, sets[450:], first=10)
    report = find_pairs(conn, approximate=True)
    assert report.chunks == 51
    assert report.approximate
    assert runs(conn) == [("full", True), ("incremental", True)]
    incremental = stored(conn)
    assert find_pairs(conn, approximate=True).chunks == 0
    find_pairs(conn, approximate=True, full=True)
    assert stored(conn) == incremental


def test_exact_after_approximate_compares_everything(conn: psycopg.Connection) -> None:
    sets = add_token_sets(conn, look_alikes(300))
    find_pairs(conn, approximate=True)
    report = find_pairs(conn)
    assert (report.chunks, report.approximate, report.expected_recall) == (300, False, None)
    assert runs(conn) == [("full", True), ("full", False)]
    assert stored(conn) == brute_force(sets)
    assert conn.execute("SELECT count(*) FROM pgembed.jaccard_signatures").fetchone() == (0,)


def test_approximate_after_exact_keeps_what_is_known(conn: psycopg.Connection) -> None:
    sets = look_alikes(400)
    known = add_token_sets(conn, sets[:360])
    find_pairs(conn)
    exact = brute_force(known)
    unchanged = find_pairs(conn, approximate=True)
    assert (unchanged.chunks, unchanged.approximate) == (0, False)  # nothing new: all pairs are there
    everything = known | add_token_sets(conn, sets[360:], first=10)
    report = find_pairs(conn, approximate=True)
    assert (report.chunks, report.approximate) == (40, True)
    assert exact.items() <= stored(conn).items() <= brute_force(everything).items()
    assert len(stored(conn)) > len(exact)
    find_pairs(conn)
    assert stored(conn) == brute_force(everything)
    assert runs(conn) == [("full", False), ("incremental", True), ("full", False)]


def test_the_threshold_can_rise_and_fall(conn: psycopg.Connection) -> None:
    add_token_sets(conn, look_alikes(300))
    find_pairs(conn, approximate=True)
    low = stored(conn)
    report = find_pairs(conn, approximate=True, min_jaccard=0.7)
    assert stored(conn) == {pair: value for pair, value in low.items() if value[1] >= 0.7}
    assert report.expected_recall == pytest.approx(Bands(4, 47).recall(0.7))  # the bands are still those of 0.5
    find_pairs(conn, approximate=True, min_jaccard=0.5)
    assert stored(conn) == low
    assert runs(conn) == [("full", True), ("raise", True), ("full", True)]
    find_pairs(conn, approximate=True, min_jaccard=0.7)
    find_pairs(conn, min_jaccard=0.7)
    assert runs(conn)[-1] == ("full", False)


def test_a_crowded_bucket_is_reported_and_its_copies_stay_together(
    conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (module, approximate):
        monkeypatch.setattr(place, "MOST_IN_BUCKET", 10)
    copies = add_token_sets(conn, [frozenset(range(1, 15))] * 50)
    others = add_token_sets(conn, look_alikes(100, seed=3))
    report = find_pairs(conn, approximate=True)
    # every band puts all 50 into one bucket; there are 40·39/2 pairs of places more than ten apart
    assert report.crowded_buckets >= 47
    assert report.largest_bucket >= 50
    assert report.comparisons_left_out >= 47 * 40 * 39 // 2
    found = stored(conn)
    assert found.items() <= brute_force(copies | others).items()
    among = {pair for pair in found if set(pair) <= copies.keys()}
    assert 50 * 10 - 55 <= len(among) < 50 * 49 // 2
    # one cluster, as the splits will see it
    reached, edge = {min(copies)}, {min(copies)}
    while edge:
        edge = {x for pair in among for x in pair if set(pair) & edge} - reached
        reached |= edge
    assert reached == copies.keys()
    outcome = pgembed("pairs", "--dsn", conn.info.dsn, "--approximate")
    assert (
        f"Left out: {report.comparisons_left_out:,} comparisons in {report.crowded_buckets:,} buckets" in outcome.stdout
    )
    new = add_token_sets(conn, [frozenset(range(1, 15))] * 3, first=1000)
    after = find_pairs(conn, approximate=True)
    assert after.chunks == 3
    assert after.crowded_buckets >= 47
    assert after.comparisons_left_out > 0
    assert all(any(chunk in pair for pair in stored(conn)) for chunk in new)


def test_jobs_share_the_work(conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    add_token_sets(conn, look_alikes(400))
    find_pairs(conn, approximate=True)
    alone = stored(conn)
    monkeypatch.setattr(module, "_BAND_SLICE", 40)
    monkeypatch.setattr(module, "_RANGE", 60)
    monkeypatch.setattr(approximate, "_RANGE", 50)
    report = find_pairs(conn, full=True, jobs=3, approximate=True)
    assert (report.chunks, report.pairs_found) == (400, len(alone))
    assert stored(conn) == alone


def test_two_at_once_do_not_double_the_work(conn: psycopg.Connection, database_url: str) -> None:
    add_token_sets(conn, look_alikes(400))
    outcomes: list[object] = []

    def run(approximately: bool) -> None:
        with connect(database_url, access="session") as own:
            try:
                outcomes.append(find_pairs(own, approximate=approximately).chunks)
            except MiningError as error:
                outcomes.append(str(error))

    threads = [threading.Thread(target=run, args=(True,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(400) == 1
    assert all(outcome in (400, 0) or "at work" in str(outcome) for outcome in outcomes)
    assert runs(conn) == [("full", True)]
    with connect(database_url, access="session") as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended('pgembed.pairs', 0))")
        with pytest.raises(MiningError, match="at work"):
            find_pairs(conn, approximate=True)


@pytest.mark.parametrize("reached", ["signatures", "slices"])
def test_kill_9_in_the_middle_is_gone_on_with(conn: psycopg.Connection, database_url: str, reached: str) -> None:
    add_token_sets(conn, look_alikes(1000))
    program = (
        "import sys; from pgembed.db.connection import connect; from pgembed.mining import approximate, pairs; "
        "pairs._BAND_SLICE = 100; approximate._RANGE = 100; "
        "pairs.find_pairs(connect(sys.argv[1], access='session'), approximate=True)"
    )
    counted = {
        "signatures": "SELECT count(*) FROM pgembed.jaccard_signatures",
        "slices": "SELECT count(*) FROM pgembed.pair_slices WHERE pairs IS NOT NULL",
    }[reached]
    process = subprocess.Popen([sys.executable, "-c", program, database_url])
    try:
        while process.poll() is None:
            row = conn.execute(counted).fetchone()
            assert row is not None
            if row[0] >= 2:
                break
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    for _ in range(200):  # until the server has noticed
        try:
            find_pairs(conn, approximate=True)
            break
        except MiningError:
            time.sleep(0.05)
    assert runs(conn) == [("full", True)]
    resumed = stored(conn)
    assert conn.execute("SELECT state, measured_recall IS NOT NULL FROM pgembed.pair_runs").fetchall() == [
        ("finished", True)
    ]
    find_pairs(conn, approximate=True, full=True)
    assert stored(conn) == resumed


def test_an_interrupted_approximate_increment_never_passes_for_exact(
    conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = look_alikes(400)
    everything = add_token_sets(conn, sets[:360])
    find_pairs(conn)
    everything |= add_token_sets(conn, sets[360:], first=10)
    monkeypatch.setattr(module, "_PROBES", 10)
    real, calls = module.query, 0

    def failing(name: str) -> object:
        nonlocal calls
        calls += name == "leave_queue"
        if calls == 3:
            raise KeyboardInterrupt
        return real(name)

    monkeypatch.setattr(module, "query", failing)
    with pytest.raises(KeyboardInterrupt):
        find_pairs(conn, approximate=True)
    monkeypatch.setattr(module, "query", real)
    assert conn.execute("SELECT count(*) FROM pgembed.pair_queue").fetchone() == (20,)
    find_pairs(conn)
    assert stored(conn) == brute_force(everything)


def test_a_token_that_is_not_there_is_an_error(conn: psycopg.Connection) -> None:
    add_token_sets(conn, look_alikes(20))
    conn.execute("DELETE FROM pgembed.tokens WHERE id = (SELECT token_ids[1] FROM pgembed.code_chunks LIMIT 1)")
    with pytest.raises(psycopg.errors.RaiseException, match=r"not in pgembed\.tokens"):
        find_pairs(conn, approximate=True)


def test_the_command_says_that_copies_may_be_missing(conn: psycopg.Connection, database_url: str) -> None:
    add_token_sets(conn, look_alikes(200))
    outcome = pgembed("pairs", "--dsn", database_url, "--approximate", "--jobs", "2")
    assert outcome.code == 0, outcome.stderr
    assert "a copy is missed with probability 2e-11" in outcome.stdout
    assert "chunks drawn at random truly have" in outcome.stdout
    report = json.loads(pgembed("pairs", "--dsn", database_url, "--approximate", "--json").stdout)
    assert (report["chunks"], report["approximate"]) == (0, True)
    assert report["expected_recall"] == pytest.approx(Bands(4, 47).recall(0.5))
    assert report["recall_pairs"] > 0
    assert report["comparisons_left_out"] == 0
    exact = json.loads(pgembed("pairs", "--dsn", database_url, "--json").stdout)
    assert (exact["chunks"], exact["approximate"], exact["measured_recall"]) == (200, False, None)


def test_the_plan_has_its_fences(conn: psycopg.Connection) -> None:
    for name, materialized, fences in (
        ("jaccard_band_candidates", 1, 2),
        ("jaccard_band_join", 2, 1),
        ("jaccard_band_pairs_of", 3, 2),
    ):
        row = conn.execute("SELECT prosrc, proconfig FROM pg_proc WHERE proname = %s", (name,)).fetchone()
        assert row is not None
        assert row[0].count("AS MATERIALIZED") == materialized
        assert row[0].count("OFFSET 0") >= fences
        assert {"enable_mergejoin=off", "jit=off"} <= set(row[1])
