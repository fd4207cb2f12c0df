"""`find_pairs`: up to date after every change, at the cost of the change; never done twice; resumed after a kill."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from itertools import combinations

import psycopg
import pytest
from fixtures_token_sets import look_alikes

from pgembed.db.connection import connect
from pgembed.errors import MiningError
from pgembed.mining import pairs as module
from pgembed.mining.pairs import find_pairs

AddSets = Callable[[Iterable[frozenset[int]]], list[int]]
Rows = list[tuple[int, int, int, float]]


def stored(conn: psycopg.Connection) -> Rows:
    return conn.execute("SELECT * FROM pgembed.candidate_pairs ORDER BY 1, 2").fetchall()


def full_run(conn: psycopg.Connection, min_jaccard: float = 0.5) -> Rows:
    find_pairs(conn, min_jaccard=min_jaccard, full=True)
    return stored(conn)


def modes(conn: psycopg.Connection) -> list[str]:
    return [mode for (mode,) in conn.execute("SELECT mode FROM pgembed.pair_runs ORDER BY id")]


def test_a_second_run_has_nothing_to_do(conn: psycopg.Connection, add_sets: AddSets) -> None:
    add_sets(look_alikes(200))
    first = find_pairs(conn)
    assert (first.chunks, first.pairs_found) == (200, first.pairs)
    assert first.pairs > 100
    again = find_pairs(conn)
    assert (again.chunks, again.pairs_found, again.pairs) == (0, 0, first.pairs)
    assert modes(conn) == ["full"]


def test_changes_give_what_a_full_run_gives(conn: psycopg.Connection, add_sets: AddSets) -> None:
    sets = look_alikes(400)
    ids = add_sets(sets[:360])
    find_pairs(conn)
    conn.execute("DELETE FROM pgembed.code_chunks WHERE id = ANY(%s)", (ids[::30],))
    conn.execute("UPDATE pgembed.code_chunks SET token_ids = %s WHERE id = %s", (sorted(sets[5]), ids[1]))
    conn.execute("UPDATE pgembed.code_chunks SET token_ids = '{}' WHERE id = %s", (ids[2],))
    add_sets(sets[360:])
    report = find_pairs(conn)
    assert report.chunks == 41  # the new ones and the one with other tokens: no more
    assert modes(conn) == ["full", "incremental"]
    incremental = stored(conn)
    assert incremental == full_run(conn)


def test_tokens_never_seen_before_and_drift_keep_the_result_exact(conn: psycopg.Connection, add_sets: AddSets) -> None:
    add_sets(look_alikes(300))
    find_pairs(conn)
    # tokens that were rare, and new ones, become the most frequent of all
    add_sets(members | {1, 2, 3, 9001, 9002, 9003} for members in look_alikes(50, seed=1))
    find_pairs(conn)
    assert modes(conn) == ["full", "incremental"]
    incremental = stored(conn)
    assert incremental == full_run(conn)


def test_twice_as_much_is_ranked_anew(conn: psycopg.Connection, add_sets: AddSets) -> None:
    sets = look_alikes(300)
    add_sets(sets[:100])
    find_pairs(conn)
    for start in range(100, 220, 20):
        add_sets(sets[start : start + 20])
        find_pairs(conn)
    assert modes(conn)[0] == "full"
    assert "full" in modes(conn)[1:]


def test_the_threshold_can_rise_and_fall(conn: psycopg.Connection, add_sets: AddSets) -> None:
    add_sets(look_alikes(200))
    find_pairs(conn, min_jaccard=0.6)
    high = stored(conn)
    find_pairs(conn, min_jaccard=0.4)
    low = stored(conn)
    assert len(low) > len(high)
    report = find_pairs(conn, min_jaccard=0.6)
    assert report.chunks == 0
    assert stored(conn) == high
    assert conn.execute("SELECT min_jaccard FROM pgembed.pair_runs ORDER BY id DESC LIMIT 1").fetchone() == (0.6,)
    find_pairs(conn, min_jaccard=0.4)
    assert stored(conn) == low


def test_small_sets_are_left_out_only_when_told(conn: psycopg.Connection, add_sets: AddSets) -> None:
    add_sets([frozenset({1, 2}), frozenset({1, 2}), frozenset({3}), frozenset({3}), frozenset(), frozenset()])
    assert find_pairs(conn).pairs == 2
    conn.execute("UPDATE pgembed.mining_settings SET value = 2 WHERE name = 'pairs_min_tokens'")
    assert find_pairs(conn).pairs == 1


def test_jobs_share_the_work(conn: psycopg.Connection, add_sets: AddSets, monkeypatch: pytest.MonkeyPatch) -> None:
    add_sets(look_alikes(400))
    expected = full_run(conn)
    monkeypatch.setattr(module, "_SLICE", 40)
    monkeypatch.setattr(module, "_RANGE", 60)
    report = find_pairs(conn, full=True, jobs=3)
    assert stored(conn) == expected
    assert (report.chunks, report.pairs_found) == (400, len(expected))


def test_jobs_share_what_is_new(conn: psycopg.Connection, add_sets: AddSets, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = look_alikes(400)
    add_sets(sets[:340])
    find_pairs(conn)
    before = len(stored(conn))
    monkeypatch.setattr(module, "_FEW", 1)
    monkeypatch.setattr(module, "_PROBES", 7)
    add_sets(sets[340:])
    # a pair of two new chunks is found from both sides, maybe at once, and counted once
    report = find_pairs(conn, jobs=3)
    assert (report.chunks, report.pairs_found) == (60, report.pairs - before)
    assert modes(conn) == ["full", "incremental"]
    incremental = stored(conn)
    assert incremental == full_run(conn)


def test_two_at_once_do_not_double_the_work(conn: psycopg.Connection, database_url: str, add_sets: AddSets) -> None:
    add_sets(look_alikes(400))
    outcomes: list[object] = []

    def run() -> None:
        with connect(database_url, access="session") as own:
            try:
                outcomes.append(find_pairs(own).chunks)
            except MiningError as error:
                outcomes.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # whoever came later was refused, or found nothing to do
    assert outcomes.count(400) == 1
    assert all(outcome in (400, 0) or "at work" in str(outcome) for outcome in outcomes)
    assert modes(conn) == ["full"]
    once = stored(conn)
    assert once == full_run(conn)


@pytest.mark.parametrize("stop_after", [0, 2, 5])
def test_an_interrupted_full_run_goes_on(
    conn: psycopg.Connection, add_sets: AddSets, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    sets = look_alikes(400)
    ids = add_sets(sets[:380])
    monkeypatch.setattr(module, "_SLICE", 50)
    real, done = module._Run._slice, 0

    def failing(self: module._Run, run_id: int, ordinal: int) -> Callable[[psycopg.Connection], None]:
        def join(own: psycopg.Connection) -> None:
            nonlocal done
            if done == stop_after:
                raise KeyboardInterrupt
            done += 1
            real(self, run_id, ordinal)(own)

        return join

    monkeypatch.setattr(module._Run, "_slice", failing)
    with pytest.raises(KeyboardInterrupt):
        find_pairs(conn)
    monkeypatch.setattr(module._Run, "_slice", real)
    closed = conn.execute("SELECT count(*) FROM pgembed.pair_slices WHERE pairs IS NOT NULL").fetchone()
    assert closed == (stop_after,)
    # meanwhile the code changes
    add_sets(sets[380:])
    conn.execute("DELETE FROM pgembed.code_chunks WHERE id = ANY(%s)", (ids[::40],))
    find_pairs(conn)
    assert modes(conn) == ["full", "incremental"]
    resumed = stored(conn)
    assert resumed == full_run(conn)


def test_kill_9_in_the_middle_leaves_whole_slices(
    conn: psycopg.Connection, database_url: str, add_sets: AddSets
) -> None:
    add_sets(look_alikes(3000))
    program = (
        "import sys; from pgembed.db.connection import connect; from pgembed.mining import pairs; "
        "pairs._SLICE = 100; pairs.find_pairs(connect(sys.argv[1], access='session'))"
    )
    process = subprocess.Popen([sys.executable, "-c", program, database_url])
    counted = "SELECT count(*) FILTER (WHERE pairs IS NOT NULL), count(*) FROM pgembed.pair_slices"
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
            find_pairs(conn)
            break
        except MiningError:
            time.sleep(0.05)
    assert modes(conn) == ["full"]
    resumed = stored(conn)
    assert resumed == full_run(conn)


@pytest.mark.parametrize("min_jaccard", [0.05, 0.9, 1.1])
def test_thresholds_that_cannot_be_used_are_refused(conn: psycopg.Connection, min_jaccard: float) -> None:
    with pytest.raises(MiningError, match="min-jaccard"):
        find_pairs(conn, min_jaccard=min_jaccard)


def test_a_chunk_that_comes_after_the_ranks_has_all_its_tokens(
    conn: psycopg.Connection, add_sets: AddSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its new tokens have no rank. A set without them would be too small, and its Jaccard wrong for ever."""
    sets = look_alikes(160)
    add_sets(sets)
    late = [sets[0] | {901, 902}, sets[0] | {901, 903}]
    prepare = module._Run._range

    def and_ingest(run: module._Run, *place: int, queued: bool) -> Callable[[psycopg.Connection], None]:
        if late:
            add_sets([late.pop(), late.pop()])
        return prepare(run, *place, queued=queued)

    monkeypatch.setattr(module._Run, "_range", and_ingest)
    find_pairs(conn)
    find_pairs(conn)
    found = stored(conn)
    assert not conn.execute(
        "SELECT FROM pgembed.jaccard_sets s JOIN pgembed.code_chunks c ON c.id = s.chunk_id WHERE s.n <> c.token_count"
    ).fetchall()
    assert found == full_run(conn)
    assert conn.execute("SELECT count(*) FROM pgembed.jaccard_sets").fetchone() == (162,)


def test_many_sets_beside_tokens_that_no_chunk_has_any_more(conn: psycopg.Connection, add_sets: AddSets) -> None:
    """Ranks are read from an array by token id; tokens of deleted chunks have none, and leave gaps in it."""
    ids = add_sets(
        [*look_alikes(40, seed=1), *(frozenset({1000 + n, 2000 + n}) for n in range(40)), *look_alikes(2100)]
    )
    conn.execute("DELETE FROM pgembed.code_chunks WHERE id = ANY(%s)", (ids[40:80],))
    found = {(a, b): (n, j) for a, b, n, j in full_run(conn, 0.7)}
    sets = {
        i: frozenset(tokens) for i, tokens in conn.execute("SELECT id, token_ids FROM pgembed.code_chunks").fetchall()
    }
    expected = {}
    for a, b in combinations(sorted(sets), 2):
        common = len(sets[a] & sets[b])
        if 10 * common >= 7 * (len(sets[a]) + len(sets[b]) - common):
            expected[a, b] = (common, common / (len(sets[a]) + len(sets[b]) - common))
    assert found == expected
    assert len(found) > 1000
