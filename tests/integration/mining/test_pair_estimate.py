"""The estimate: true rows where the sample is everything, near them where it is a part; and told before a long run."""

import json
import random
from contextlib import AbstractContextManager

import psycopg
import pytest
from fixtures_cli import pgembed
from fixtures_token_sets import add_token_sets

from pgembed.errors import MiningError
from pgembed.mining import pairs as module
from pgembed.mining.estimate import estimate_pairs
from pgembed.mining.pairs import find_pairs
from pgembed.progress import SILENT, Task


def scattered(count: int, seed: int = 0) -> list[frozenset[int]]:
    """Sets around many centres, with tokens that are frequent and others that are rare."""
    chance = random.Random(seed)  # noqa: S311 - a repeatable sample
    centres = [
        frozenset([*chance.sample(range(20), 5), *chance.sample(range(20, 3000), 12)]) for _ in range(count // 15)
    ]
    return [chance.choice(centres) ^ frozenset(chance.sample(range(3000), chance.randrange(10))) for _ in range(count)]


def counted(conn: psycopg.Connection, thousandths: int) -> int:
    row = conn.execute("SELECT count(*) FROM pgembed.jaccard_pairs(%s)", (thousandths,)).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("min_jaccard", [0.4, 0.5, 0.7, 1.0])
def test_a_sample_of_everything_counts_what_there_is(conn: psycopg.Connection, min_jaccard: float) -> None:
    conn.execute("UPDATE pgembed.mining_settings SET value = 1 WHERE name = 'near_duplicate'")
    add_token_sets(conn, [*scattered(600), frozenset(), frozenset({1}), frozenset({1})])
    report = find_pairs(conn, min_jaccard=min_jaccard)
    estimate = estimate_pairs(conn, min_jaccard=min_jaccard)
    assert (estimate.chunks, estimate.sampled) == (602, 602)
    assert estimate.pairs == report.pairs
    assert estimate.pairs <= estimate.candidates <= estimate.joined


def test_a_part_foretells_the_whole(conn: psycopg.Connection) -> None:
    add_token_sets(conn, scattered(3000))
    find_pairs(conn)
    true = counted(conn, 500)
    whole = estimate_pairs(conn, sample=3000)
    part = estimate_pairs(conn, sample=1500)
    assert true > 3000
    assert part.sampled == 1500
    # a quarter of all pairs in half of the chunks: what grew in proportion would be wrong by a factor of two
    assert part.pairs == pytest.approx(true, rel=0.25)
    assert part.joined == pytest.approx(whole.joined, rel=0.25)
    assert part.approximate_joined == pytest.approx(whole.approximate_joined, rel=0.5)


def test_it_leaves_nothing_behind(conn: psycopg.Connection) -> None:
    add_token_sets(conn, scattered(200))
    before = conn.execute("SELECT count(*) FROM pg_class").fetchone()
    with conn.transaction():
        for _ in range(2):  # twice in one transaction as well
            estimate_pairs(conn)
    assert conn.execute("SELECT count(*) FROM pg_class").fetchone() == before
    assert conn.execute("SELECT count(*) FROM pgembed.pair_runs").fetchone() == (0,)


def test_an_empty_database_costs_nothing(conn: psycopg.Connection) -> None:
    estimate = estimate_pairs(conn)
    assert (estimate.chunks, estimate.pairs, estimate.joined) == (0, 0, 0)


def test_a_threshold_that_cannot_be_used_is_refused(conn: psycopg.Connection) -> None:
    with pytest.raises(MiningError, match="min-jaccard"):
        estimate_pairs(conn, min_jaccard=0.05)


class _Told:
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def task(self, description: str, total: int | None, unit: str) -> AbstractContextManager[Task]:
        return SILENT.task(description, total, unit)


@pytest.mark.parametrize(("telling", "hinting", "lines"), [(1e9, 1e9, 0), (0, 1e9, 1), (0, 0, 2)])
def test_a_long_run_is_announced(
    conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, telling: float, hinting: float, lines: int
) -> None:
    add_token_sets(conn, scattered(200))
    monkeypatch.setattr(module, "_ESTIMATED_FROM", 100)
    monkeypatch.setattr(module, "WORTH_TELLING_S", telling)
    monkeypatch.setattr(module, "WORTH_APPROXIMATING_S", hinting)
    told = _Told()
    find_pairs(conn, progress=told)
    assert len(told.lines) == lines
    assert ["candidate pairs" in line or "--approximate" in line for line in told.lines] == [True] * lines
    again = _Told()
    find_pairs(conn, progress=again)  # nothing new
    assert again.lines == []


def test_the_command_tells_and_stops(conn: psycopg.Connection, database_url: str) -> None:
    add_token_sets(conn, scattered(300))
    outcome = pgembed("pairs", "--dsn", database_url, "--estimate")
    assert outcome.code == 0, outcome.stderr
    assert "300 chunks at Jaccard 0.5" in outcome.stdout
    assert "candidate pairs" in outcome.stdout
    foretold = json.loads(
        pgembed("pairs", "--dsn", database_url, "--estimate", "--min-jaccard", "0.7", "--json").stdout
    )
    assert (foretold["chunks"], foretold["min_jaccard"]) == (300, 0.7)
    assert {"candidates", "pairs", "seconds", "approximate_seconds", "expected_recall", "copy_miss"} <= foretold.keys()
    assert conn.execute("SELECT count(*) FROM pgembed.pair_runs").fetchone() == (0,)
