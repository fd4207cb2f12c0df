"""`pgembed tune` on a tiny model: a study that is killed, gone on with, shared, and kept apart from other schemas."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from fixtures_cli import pgembed
from psycopg.conninfo import make_conninfo

from pgembed.db.connection import connect
from pgembed.errors import TrainingError
from pgembed.evaluation.dataset import Dataset
from pgembed.training.options import TrainingOptions
from pgembed.training.runs import ValidationMetrics
from pgembed.training.trial import Bench, Measured
from pgembed.training.tune import Budget, TuningResult, search

OPTIONS = TrainingOptions(
    view="made_up_triplets", loss="triplet", steps=4, batch=8, learning_rate=2e-4, precision="fp32", evaluation_rows=8
)
SHARES = (0.3, 1.0)

# The process dies in its second trial, at its first look.
_KILLED = """
import os, signal, sys
import pgembed.training.trial as trial
from pgembed.cli.app import main

plain, trials = trial.Bench.run, 0
def dying(self, options, *, validated, **more):
    global trials
    trials += 1
    def look(found):
        if trials == 2 and found.step:
            os.kill(os.getpid(), signal.SIGKILL)
        validated(found)
    return plain(self, options, validated=look, **more)
trial.Bench.run = dying
sys.argv = ["pgembed", *sys.argv[1:]]
main()
"""


@pytest.fixture
def validated(triplets: psycopg.Connection) -> psycopg.Connection:
    """The made-up triplets, the last eight for validation, and sixteen code triplets besides."""
    triplets.execute("UPDATE pgembed.made_up_triplets SET split = 'validation' WHERE split = 'test'")
    triplets.execute(
        "INSERT INTO pgembed.made_up_triplets SELECT ordinal + 100, 'code', 'train', language, negative, positive,"
        " 'def other(): pass' FROM pgembed.made_up_triplets WHERE ordinal < 16"
    )
    return triplets


class Scored(Bench):
    """Trials without a training: the score is what a rule makes of the options."""

    def __init__(self) -> None:
        self.base, self.available, self.code = Measured(0.0, 0.5, 0.5, 0.0, None), 1000, 1000
        self.identity = {"data": "made up"}
        self.seen: list[TrainingOptions] = []

    def run(self, options: TrainingOptions, *, validated: object, **_: object) -> list[Measured]:  # type: ignore[override]
        self.seen.append(options)
        if options.batch == 64:
            raise TrainingError("The loss was not finite.")
        scores = score_of(options)
        for step, part in ((1, 0.25), (2, 0.5)):
            validated(ValidationMetrics(step, 1, 1, 0.0, scores * part, 0.0, [], [], 0.0))  # type: ignore[operator]
        return [Measured(share, scores - abs(share - 0.6), scores, 0.0, None) for share in (0.2, 0.6, 1.0)]


def score_of(options: TrainingOptions) -> float:
    return 1.0 + 0.3 * (options.negatives == "semi-hard") - abs(options.margin - 0.3) - 0.2 * options.code_share


def states(result: TuningResult) -> list[str]:
    return [trial.state for trial in result.trials]


def test_a_search_finds_what_is_better_and_says_what_mattered(conn: psycopg.Connection) -> None:
    bench = Scored()
    result = search(conn, bench, OPTIONS, budget=Budget(trials=30))
    first = bench.seen[0]
    assert (first.batch, first.negatives, first.margin, first.learning_rate, first.code_share) == (
        8, "hardest", 0.2, pytest.approx(2e-4), 0.25
    )  # fmt: skip
    assert result.best is not None
    assert result.options is not None
    assert result.options.interpolate == 0.6
    assert result.options.evaluate_every is None
    assert score_of(result.options) > 1.2
    assert result.best.score == pytest.approx(score_of(result.options))
    assert {"complete", "pruned", "fail"} == set(states(result))
    assert result.importance["margin"] + result.importance["negatives"] > 0.5
    assert list(result.shares) == [0.2, 0.6, 1.0]
    assert max(result.shares, key=lambda share: result.shares[share]) == 0.6
    failed = next(trial for trial in result.trials if trial.state == "fail")
    assert failed.error == "The loss was not finite."


def test_a_study_goes_on_and_belongs_to_what_it_was_begun_with(conn: psycopg.Connection) -> None:
    one = search(conn, Scored(), OPTIONS, budget=Budget(trials=4))
    again = search(conn, bench := Scored(), OPTIONS, budget=Budget(trials=4))
    assert bench.seen == []
    assert again.trials == one.trials
    more = search(conn, bench, OPTIONS, budget=Budget(trials=6))
    assert more.trials[:4] == one.trials
    assert len(bench.seen) == 2
    # not the same proposals once more
    assert len({json.dumps(trial.options, sort_keys=True) for trial in more.trials}) == 6
    bench.identity = {"data": "other"}
    with pytest.raises(TrainingError, match="data was 'made up' and is 'other'"):
        search(conn, bench, OPTIONS, budget=Budget(trials=8))
    assert len(search(conn, bench, OPTIONS, name="another", budget=Budget(trials=1)).trials) == 1
    assert search(conn, bench, OPTIONS, name="late", budget=Budget(minutes=1e-9)).trials[0].state == "waiting"


def tables(conn: psycopg.Connection) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for schema, table in conn.execute(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('public', 'pgembed', 'pgembed_tune')"
    ):
        found.setdefault(schema, set()).add(table)
    return found


def command(dsn: str, model: Path, *more: str) -> Sequence[str]:
    return (
        "tune", "--base", str(model), "--view", "made_up_triplets", "--steps", "4", "--precision", "fp32",
        "--evaluation-rows", "8", "--dsn", dsn, *more,
    )  # fmt: skip


def test_killed_it_goes_on_and_its_tables_stand_apart(
    validated: psycopg.Connection, database_url: str, home: Path, tiny_model: Path
) -> None:
    validated.execute("CREATE TABLE public.alembic_version (version_num text); ")
    validated.execute("INSERT INTO public.alembic_version VALUES ('the user''s own')")
    before = tables(validated)
    versions = "SELECT (SELECT version_num FROM public.alembic_version), version_num FROM pgembed.alembic_version"
    expected = validated.execute(versions).fetchall()
    run = subprocess.run(
        [sys.executable, "-c", _KILLED, *command(database_url, tiny_model, "--trials", "3")],
        capture_output=True, text=True, check=False, env={**os.environ, "PGEMBED_HOME": str(home)},
    )  # fmt: skip
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert "Trial 0: " in run.stderr
    done = pgembed(*command(database_url, tiny_model, "--trials", "3", "--json"))
    assert done.code == 0, done.stderr
    told = json.loads(done.stdout)
    # the trial that died is marked, and its options are the next that were tried
    assert [trial["state"] for trial in told["trials"]] == ["complete", "fail", "complete", "complete"]
    assert told["trials"][2]["options"] == told["trials"][1]["options"]
    assert tables(validated)["pgembed"] == before["pgembed"]
    assert tables(validated)["public"] == before["public"]
    assert {"alembic_version", "trials", "studies"} <= tables(validated)["pgembed_tune"]
    assert validated.execute(versions).fetchall() == expected
    assert validated.execute("SELECT count(*) FROM pgembed.training_runs").fetchone() == (0,)
    # what it prints can be run
    shown = pgembed(*command(database_url, tiny_model, "--trials", "3"))
    (line,) = (line for line in shown.stdout.splitlines() if line.startswith("Next: "))
    assert line.removeprefix("Next: ") == told["command"]
    trained = pgembed(*shlex.split(told["command"])[1:], "--dsn", database_url, "--json")
    assert trained.code == 0, trained.stderr
    assert json.loads(trained.stdout)["steps"] == 4


def test_several_at_work_share_a_study(database_url: str) -> None:
    benches = [Scored() for _ in range(3)]

    def work(bench: Scored) -> TuningResult:
        with connect(database_url, access="session") as conn:
            return search(conn, bench, OPTIONS, budget=Budget(trials=12))

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(work, benches))
    # no trial twice, none too many, and none taken for that of a dead process
    assert sum(len(bench.seen) for bench in benches) == 12
    last = max(results, key=lambda result: states(result).count("running") == 0)
    assert [trial.number for trial in last.trials] == list(range(12))
    assert min(len(bench.seen) for bench in benches) > 0


def test_one_training_serves_every_share_and_a_guard_takes_off_what_is_lost(
    validated: psycopg.Connection, home: Path, tiny_model: Path
) -> None:
    rows = validated.execute(
        "SELECT anchor, positive FROM pgembed.made_up_triplets WHERE kind = 'docstring'"
    ).fetchall()
    guard = Dataset(
        "guard",
        {f"q{n}": anchor for n, (anchor, _) in enumerate(rows)},
        {f"d{n}": body for n, (_, body) in enumerate(rows)},
        {f"q{n}": {f"d{n}": 1} for n in range(len(rows))},
    )
    options = TrainingOptions(**{**vars(OPTIONS), "steps": 8, "code_share": 0.25, "evaluate_every": 4})
    bench = Bench(validated, OPTIONS, base=tiny_model, shares=SHARES, guard=guard)
    assert (bench.available, bench.code) == (32, 16)
    looks: list[int] = []
    found = bench.run(options, validated=lambda seen: looks.append(seen.step))
    assert looks == [0, 4, 8]
    assert [one.share for one in found] == [0.3, 1.0]
    assert len({one.ndcg for one in found} | {bench.base.ndcg}) > 1
    for one in found:
        assert one.guard is not None
        assert one.score == one.ndcg - one.penalty
        assert (one.penalty > 0) <= (one.guard < (bench.base.guard or 0.0))
    # a model that finds nothing any more is beyond its interval
    ruined = bench.run(
        TrainingOptions(**{**vars(options), "learning_rate": 1.0, "schedule": "constant"}), validated=lambda _: None
    )
    assert ruined[-1].guard == pytest.approx(0, abs=0.3)
    assert ruined[-1].penalty >= 0


def test_a_role_that_may_not_make_schemas_searches_in_one_that_is_made_for_it(
    conn: psycopg.Connection, database_url: str
) -> None:
    conn.execute("CREATE ROLE tuner")
    try:
        with connect(make_conninfo(database_url, options="-c role=tuner")) as tuner:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                search(tuner, Scored(), OPTIONS, budget=Budget(trials=1))
            conn.execute("CREATE SCHEMA pgembed_tune AUTHORIZATION tuner")
            assert len(search(tuner, Scored(), OPTIONS, budget=Budget(trials=3)).trials) == 3
    finally:
        conn.execute("DROP OWNED BY tuner CASCADE")
        conn.execute("DROP ROLE tuner")
