"""Runs of two processes: what one process would come to, and none that waits for another for ever."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from fixtures_processes import started
from safetensors.torch import load_file

from pgembed.training.loop import train
from pgembed.training.options import TrainingOptions
from pgembed.training.runs import TrainingResult

OPTIONS = TrainingOptions(
    view="made_up_triplets", steps=12, batch=8, learning_rate=2e-4, precision="fp32", interpolate=1.0, loss="in-batch",
    micro_batch=3, evaluate_every=4, keep_best="loss",
)  # fmt: skip

COMMAND = (
    "train", "--view", "made_up_triplets", "--steps", "12", "--batch", "8", "--learning-rate", "2e-4", "--precision",
    "fp32", "--interpolate", "1", "--loss", "in-batch", "--micro-batch", "3", "--evaluate-every", "4", "--keep-best",
    "loss", "--json",
)  # fmt: skip

# The process of rank 1 ends in the middle of its seventh step, without a word.
_KILLED = """
import os, signal, sys
import pgembed.training.steps as steps
from pgembed.cli.app import main

taken, plain = 0, steps.accumulate_gradients
def dying(*args, **options):
    global taken
    taken += 1
    if os.environ["RANK"] == "1" and taken == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(*args, **options)
steps.accumulate_gradients = dying
sys.argv = ["pgembed", *sys.argv[1:]]
main()
"""


@pytest.fixture
def validated(triplets: psycopg.Connection) -> psycopg.Connection:
    """The made-up triplets, with the last eight for validation."""
    triplets.execute("UPDATE pgembed.made_up_triplets SET split = 'validation' WHERE split = 'test'")
    return triplets


def launched(*arguments: str, home: Path) -> subprocess.Popen[str]:
    """Start two processes as a person does, in a group of their own."""
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    return subprocess.Popen(
        [*torchrun, "-m", "pgembed", *arguments],
        env={**os.environ, "PGEMBED_HOME": str(home), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def assert_same_course(conn: psycopg.Connection, one: TrainingResult, other: TrainingResult) -> None:
    """Assert that two runs took the same steps and came to the same weights, but for the order of sums."""
    columns = "step, loss, gradient_norm, learning_rate, zero_loss_share, anchor_cosine, anchor_deviation, update_ratio"
    a, b = (
        conn.execute(f"SELECT {columns} FROM pgembed.training_metrics WHERE run_id = %s ORDER BY 1", (run.run_id,))
        for run in (one, other)
    )
    for row, expected in zip(a.fetchall(), b.fetchall(), strict=True):
        assert row == pytest.approx(expected, abs=1e-5)
    assert one.best_step == other.best_step
    first, second = (load_file(Path(run.checkpoint) / "towers" / "tiny" / "model.safetensors") for run in (one, other))
    for name in first:
        # no vector depends on a key's bias (softmax does not heed it): its gradient is rounding, which Adam makes large
        if "key.bias" not in name:
            assert float((first[name] - second[name]).abs().max()) < 1e-5, name


def test_two_processes_come_to_what_one_does_and_write_it_once(
    validated: psycopg.Connection, database_url: str, home: Path, tiny_model: Path
) -> None:
    alone = train(validated, OPTIONS, base=tiny_model)
    command = (*COMMAND, "--fresh", "--base", str(tiny_model), "--dsn", database_url)
    process = launched(*command, "--device", "cpu", home=home)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    together = TrainingResult(**json.loads(stdout))  # one document: the other process prints nothing
    assert together.run_id != alone.run_id
    assert_same_course(validated, together, alone)
    assert stderr.count("Run 2: 12 steps of 8 from 32 triplets, fp32, 2 processes") == 1
    assert validated.execute("SELECT count(*) FROM pgembed.training_runs").fetchone() == (2,)
    assert [path.name for path in Path(together.checkpoint).parent.iterdir()] == ["final"]


def test_a_killed_process_ends_the_others_and_one_alone_goes_on(
    validated: psycopg.Connection, database_url: str, home: Path, tiny_model: Path
) -> None:
    straight = train(validated, replace(OPTIONS, checkpoint_every=3), base=tiny_model)
    validated.execute("UPDATE pgembed.training_runs SET view = 'elsewhere'")
    command = (*COMMAND, "--checkpoint-every", "3", "--base", str(tiny_model), "--dsn", database_url)
    with started(_KILLED, *command, PGEMBED_HOME=str(home)) as (first, second):
        told = first.communicate(timeout=240)[1]  # less than the time that a silent process is given
        assert second.wait(timeout=10) == -signal.SIGKILL
    assert first.returncode == 1
    assert "Another process of this run ended" in told
    (found,) = validated.execute("SELECT state, error FROM pgembed.training_runs WHERE view <> 'elsewhere'").fetchall()
    assert found[0] == "failed"
    resumed = train(validated, replace(OPTIONS, checkpoint_every=3), base=tiny_model)
    assert not resumed.already_done
    assert resumed.run_id == straight.run_id + 1
    assert_same_course(validated, resumed, straight)


def test_ctrl_c_ends_all_processes(
    validated: psycopg.Connection, database_url: str, home: Path, tiny_model: Path
) -> None:
    long = ("train", "--view", "made_up_triplets", "--steps", "100000", "--batch", "8", "--evaluate-every", "0")
    command = (*long, "--checkpoint-every", "5", "--base", str(tiny_model), "--dsn", database_url)
    process = launched(*command, home=home)
    for _ in range(600):
        if validated.execute("SELECT count(*) FROM pgembed.training_metrics").fetchone() != (0,):
            break
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    process.communicate(timeout=120)
    assert process.returncode != 0
    with pytest.raises(ProcessLookupError):  # nothing of the group is left
        os.killpg(process.pid, 0)
    # and nothing holds the run
    assert validated.execute("SELECT pg_try_advisory_lock(hashtext('pgembed.train'), 1)").fetchone() == (True,)
