"""What others do to chunks while pairs are found: the pairs are true all the same, and nobody waits for long."""

import threading
import time
from contextlib import AbstractContextManager

import psycopg
import pytest
from fixtures_token_sets import add_token_sets, look_alikes

from pgembed.db.connection import connect
from pgembed.mining.pairs import find_pairs
from pgembed.progress import SILENT, Progress, Task

Pairs = dict[tuple[int, int], float]


def stored(conn: psycopg.Connection) -> Pairs:
    rows = conn.execute("SELECT chunk_a, chunk_b, jaccard FROM pgembed.candidate_pairs").fetchall()
    return {(a, b): round(jaccard, 9) for a, b, jaccard in rows}


def brute_force(conn: psycopg.Connection, threshold: float = 0.5) -> Pairs:
    """Compare all chunks as they are now."""
    sets = [
        (id, frozenset(ids)) for id, ids in conn.execute("SELECT id, token_ids FROM pgembed.code_chunks ORDER BY id")
    ]
    found = {}
    for place, (a, one) in enumerate(sets):
        for b, other in sets[place + 1 :]:
            if one and other and (jaccard := len(one & other) / len(one | other)) >= threshold:
                found[a, b] = round(jaccard, 9)
    return found


class Finder(threading.Thread):
    """Finds pairs on a connection of its own; as a context, ends with it."""

    def __init__(self, dsn: str, *, approximate: bool = False, progress: Progress = SILENT) -> None:
        super().__init__()
        self._dsn, self._approximate, self._progress = dsn, approximate, progress
        self._failed: BaseException | None = None

    def run(self) -> None:
        try:
            with connect(self._dsn, access="session") as own:
                find_pairs(own, min_jaccard=0.5, approximate=self._approximate, progress=self._progress)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self._failed = error

    def wait(self) -> None:
        """Until it is done; fails as it does."""
        self.join(60)
        assert not self.is_alive()
        if self._failed is not None:
            raise self._failed

    def wait_until_blocked(self, conn: psycopg.Connection, pid: int) -> None:
        """Until it waits for a lock of the process `pid`, or is done without."""
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
        while self.is_alive() and conn.execute(blocked, (pid,)).fetchone() == (0,):
            time.sleep(0.05)

    def __enter__(self) -> "Finder":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.join(60)


@pytest.mark.parametrize("approximate", [False, True])
@pytest.mark.parametrize("of", ["new", "old"])
@pytest.mark.parametrize("change", ["UPDATE pgembed.code_chunks SET token_ids = token_ids[2:] || %(token)s", "DELETE"])
def test_chunks_that_change_or_go_before_a_run_is_done(
    conn: psycopg.Connection,
    database_url: str,
    of: str,
    change: str,
    approximate: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pgembed.mining.workers._ATTEMPTS", 1)
    sets = look_alikes(230)
    chunks = {"old": list(add_token_sets(conn, sets[:200]))[::3]}
    find_pairs(conn, min_jaccard=0.5, approximate=approximate)
    chunks["new"] = list(add_token_sets(conn, sets[200:], first=1))[::3]
    token = conn.execute("SELECT max(id) FROM pgembed.tokens").fetchone()
    statement = f"{change.replace('DELETE', 'DELETE FROM pgembed.code_chunks')} WHERE id = ANY(%(ids)s)"
    with connect(database_url, access="session") as other:
        other.execute("BEGIN")
        other.execute(statement, {"ids": chunks[of], "token": token and token[0]})  # type: ignore[arg-type]
        with Finder(database_url, approximate=approximate) as finder:
            finder.wait_until_blocked(conn, other.info.backend_pid)
            other.execute("COMMIT")
            finder.wait()
    find_pairs(conn, min_jaccard=0.5)  # of an approximate run's pairs all are made anew
    assert stored(conn) == brute_force(conn) != {}


def test_tokens_cannot_change_between_the_join_and_its_commit(conn: psycopg.Connection, database_url: str) -> None:
    add_token_sets(conn, look_alikes(60))
    find_pairs(conn, min_jaccard=0.5)
    a = min(stored(conn))[0]
    conn.execute("DELETE FROM pgembed.candidate_pairs")
    changed = threading.Event()

    def change() -> None:
        with connect(database_url, access="session") as own:
            own.execute("UPDATE pgembed.code_chunks SET token_ids = token_ids[2:] || 100000 WHERE id = %s", (a,))
        changed.set()

    with conn.transaction():
        assert conn.execute("SELECT * FROM pgembed.jaccard_hold(%s)", ([a, 999_999],)).fetchall() == [(a,)]
        changer = threading.Thread(target=change)
        changer.start()
        assert not changed.wait(0.5)
        conn.execute(
            "INSERT INTO pgembed.candidate_pairs (chunk_a, chunk_b, intersection, jaccard)"
            " SELECT chunk_a, chunk_b, intersection, jaccard FROM pgembed.jaccard_pairs(500)"
        )
    changer.join(30)
    assert changed.is_set()
    assert stored(conn) == {pair: jaccard for pair, jaccard in brute_force(conn).items() if a not in pair} != {}
    find_pairs(conn, min_jaccard=0.5)
    assert stored(conn) == brute_force(conn)


@pytest.mark.parametrize("interrupted", [False, True])
def test_what_a_deletion_did_not_see_goes_with_the_next_run(
    conn: psycopg.Connection, database_url: str, interrupted: bool
) -> None:
    sets = look_alikes(100)
    add_token_sets(conn, sets)
    with connect(database_url, access="session") as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with other.transaction():
            other.execute("SELECT count(*) FROM pgembed.code_chunks")
            find_pairs(conn, min_jaccard=0.5)
            chunk = min(stored(conn))[0]
            other.execute("DELETE FROM pgembed.code_chunks WHERE id = %s", (chunk,))
    lost = "SELECT count(*) FROM pgembed.jaccard_sets WHERE chunk_id = %s"
    assert conn.execute(lost, (chunk,)).fetchone() == (1,)
    if interrupted:
        conn.execute("UPDATE pgembed.pair_runs SET state = 'joining'")
        conn.execute("UPDATE pgembed.pair_slices SET pairs = NULL")
        conn.execute("TRUNCATE pgembed.candidate_pairs")
    add_token_sets(conn, sets[:1], first=1)
    find_pairs(conn, min_jaccard=0.5)
    assert stored(conn) == brute_force(conn) != {}
    assert conn.execute(lost, (chunk,)).fetchone() == (0,)


def test_statements_see_what_is_committed_whatever_the_databases_default(
    conn: psycopg.Connection, database_url: str
) -> None:
    name = conn.info.dbname
    conn.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")  # type: ignore[arg-type]
    try:
        with psycopg.connect(database_url) as plain, connect(database_url, access="session") as ours:
            assert plain.execute("SHOW transaction_isolation").fetchone() == ("serializable",)
            assert ours.execute("SHOW transaction_isolation").fetchone() == ("read committed",)
            with ours.transaction():
                assert ours.execute("SHOW transaction_isolation").fetchone() == ("read committed",)
    finally:
        conn.execute(f"ALTER DATABASE {name} RESET default_transaction_isolation")  # type: ignore[arg-type]


class Told:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.waiting = threading.Event()

    def task(self, description: str, total: int | None, unit: str) -> AbstractContextManager[Task]:
        return SILENT.task(description, total, unit)

    def say(self, text: str) -> None:
        self.said.append(text)
        if text.startswith("waiting"):
            self.waiting.set()


def test_a_full_run_waits_for_a_reader_without_stopping_others(conn: psycopg.Connection, database_url: str) -> None:
    add_token_sets(conn, look_alikes(60))
    told = Told()
    with connect(database_url, access="session") as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM pgembed.candidate_pairs")
        with Finder(database_url, progress=told) as finder:
            assert told.waiting.wait(30)
            assert f"process {reader.info.backend_pid} (pgembed" in " ".join(told.said)
            # it has let go of its place in the queue: who comes now is served
            with conn.transaction():
                conn.execute("SET LOCAL statement_timeout = '20s'")
                conn.execute("SELECT count(*) FROM pgembed.candidate_pairs")
            reader.execute("COMMIT")
            finder.wait()
    assert stored(conn) == brute_force(conn) != {}
