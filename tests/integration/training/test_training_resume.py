"""Runs that are killed at any step and gone on with end with the bits of one that was not."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import torch
from safetensors.torch import load_file

from pgembed.errors import TrainingError
from pgembed.training.loop import train
from pgembed.training.options import TrainingOptions
from pgembed.training.runs import TrainingResult

PLAIN = TrainingOptions(
    view="made_up_triplets", steps=24, batch=8, checkpoint_every=5, learning_rate=2e-3, precision="fp32",
    interpolate=1.0, loss="triplet", negatives="mined",
)  # fmt: skip
# everything that a later step could depend on: moments, decay, schedule, gradients in parts, what was the best so far
FULL = replace(
    PLAIN, loss="in-batch", matryoshka=(8,), micro_batch=3, schedule="cosine", weight_decay=0.05, interpolate=0.5,
    evaluate_every=4, keep_best="loss", keep_last=3,
)  # fmt: skip

KILLED = """
import os, signal, sys
from contextlib import contextmanager
import psycopg
from pathlib import Path
from pgembed.training.loop import train
from pgembed.training.options import TrainingOptions

class Killer:
    steps = 0
    def say(self, text): pass
    @contextmanager
    def task(self, description, total, unit): yield self
    def note(self, text): pass
    def advance(self, amount=1):
        self.steps += amount
        if self.steps == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

with psycopg.connect(sys.argv[1], autocommit=True) as conn:
    train(conn, TrainingOptions(**eval(sys.argv[4])), base=Path(sys.argv[2]), progress=Killer())
"""


def killed(dsn: str, home: Path, model: Path, options: TrainingOptions, step: int) -> None:
    """Run a process of its own, and kill it when it has taken `step` steps."""
    run = subprocess.run(
        [sys.executable, "-c", KILLED, dsn, str(model), str(step), repr(vars(options))],
        capture_output=True, text=True, check=False, env={**os.environ, "PGEMBED_HOME": str(home)},
    )  # fmt: skip
    assert run.returncode == -signal.SIGKILL, run.stderr


@pytest.fixture
def validated(triplets: psycopg.Connection) -> psycopg.Connection:
    """The made-up triplets, with the last eight for validation."""
    triplets.execute("UPDATE pgembed.made_up_triplets SET split = 'validation' WHERE split = 'test'")
    return triplets


def assert_same_outcome(conn: psycopg.Connection, one: TrainingResult, other: TrainingResult) -> None:
    a, b = (load_file(run.checkpoint / "towers" / "tiny" / "model.safetensors") for run in (one, other))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    for table, columns in (
        ("metrics", "step, loss, gradient_norm, learning_rate, zero_loss_share, anchor_cosine, update_ratio"),
        ("evaluations", "step, loss, ndcg_10, mrr_10, query_ndcg, query_mrr"),
    ):
        rows = [
            conn.execute(f"SELECT {columns} FROM pgembed.training_{table} WHERE run_id = %s ORDER BY 1", (run.run_id,))
            for run in (one, other)
        ]
        assert rows[0].fetchall() == rows[1].fetchall()
    assert (one.best_step, one.alarms, one.skipped_steps) == (other.best_step, other.alarms, other.skipped_steps)


def forget(conn: psycopg.Connection) -> None:
    """Put the runs out of the way: the same command would find that this is done."""
    conn.execute("UPDATE pgembed.training_runs SET view = 'elsewhere'")


def test_killed_and_resumed_ends_with_the_same_bits(
    triplets: psycopg.Connection, database_url: str, home: Path, tiny_model: Path
) -> None:
    straight = train(triplets, PLAIN, base=tiny_model, fresh=True)
    forget(triplets)
    for step in (3, 13):  # before the first checkpoint, and between two
        killed(database_url, home, tiny_model, PLAIN, step)
    (folder,) = (path for path in (home / "checkpoints").iterdir() if path != straight.checkpoint.parent)
    assert sorted(path.name for path in folder.iterdir()) == ["step-000005", "step-000010"]
    (folder / ".step-000015-half").mkdir()
    resumed = train(triplets, PLAIN, base=tiny_model)
    assert not resumed.already_done
    assert resumed.checkpoint.parent == folder
    assert [path.name for path in folder.iterdir()] == ["final"]
    assert_same_outcome(triplets, straight, resumed)


def test_with_every_option_killed_and_resumed_ends_with_the_same_bits(
    validated: psycopg.Connection, database_url: str, home: Path, tiny_model: Path
) -> None:
    straight = train(validated, FULL, base=tiny_model, fresh=True)
    forget(validated)
    for step in (9, 17):  # after a validation that no checkpoint holds, and after another best one
        killed(database_url, home, tiny_model, FULL, step)
    (folder,) = (path for path in (home / "checkpoints").iterdir() if path != straight.checkpoint.parent)
    assert {path.name for path in folder.glob("step-*")} == {
        "step-000005",
        "step-000010",
        "step-000015",
    }  # --keep-last 3
    assert list(folder.glob("best-*"))
    assert_same_outcome(validated, straight, train(validated, FULL, base=tiny_model))
    assert [path.name for path in folder.iterdir()] == ["final"]


class Interrupting:
    """Progress that ends the run after some steps, and draws a random number at each, as a model with dropout would."""

    def __init__(self, after: int) -> None:
        self.left = after
        self.is_new = True
        self.drawn: list[float] = []
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def note(self, text: str) -> None: ...

    def advance(self, amount: int = 1) -> None:  # noqa: ARG002
        if self.is_new:  # told where the run goes on
            self.is_new = False
            return
        self.drawn.append(float(torch.rand(())))
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt

    @contextmanager
    def task(self, *_: object) -> Iterator["Interrupting"]:
        yield self


def test_interrupted_at_every_step_ends_with_the_same_bits(
    validated: psycopg.Connection, home: Path, tiny_model: Path
) -> None:
    options = replace(FULL, steps=7, checkpoint_every=1, evaluate_every=3, lora_rank=2)
    whole = Interrupting(0)
    straight = train(validated, options, base=tiny_model, progress=whole)
    forget(validated)
    drawn, result = [], None
    while result is None:
        # the second step is lost: the checkpoint after the first comes once its progress is told
        part = Interrupting(2)
        with suppress(KeyboardInterrupt):
            result = train(validated, options, base=tiny_model, progress=part)
        drawn.append(part.drawn[0])
        assert len(drawn) < 10
    assert len(drawn) == 7
    assert_same_outcome(validated, straight, result)
    assert whole.drawn == pytest.approx([*drawn], abs=0)  # the generator went on where it was


def interrupted(conn: psycopg.Connection, home: Path, model: Path) -> Path:
    """Leave a run with one checkpoint, and return the file that describes it."""
    with suppress(KeyboardInterrupt):
        train(conn, PLAIN, base=model, progress=Interrupting(8))
    (path,) = (home / "checkpoints").glob("*/step-000005/state.json")
    return path


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("margin", 0.3, r"margin was 0\.3 and is 0\.2"),
        ("data", "abc", "data was 'abc' and is '"),
        ("torch", "1.0", r"torch was '1\.0' and is '2\."),
        ("revision", "abc", "revision was 'abc' and is "),
        ("next rate", 1.0, r"next rate was 1\.0 and is 0\.0"),
        ("sampler", {"next": 1}, r"sampler was {'next': 1} and is {'batch': 8, 'next': \d+, 'of': 32}"),
    ],
)
def test_a_checkpoint_that_does_not_fit_says_which_part_differs(
    triplets: psycopg.Connection, home: Path, tiny_model: Path, part: str, value: object, message: str
) -> None:
    path = interrupted(triplets, home, tiny_model)
    state = json.loads(path.read_text())
    assert part in state["setting"]
    state["setting"][part] = value
    path.write_text(json.dumps(state))
    with pytest.raises(TrainingError, match=f"does not fit: {message}") as caught:
        train(triplets, PLAIN, base=tiny_model)
    assert str(caught.value).count(" was ") == 1


def test_a_broken_checkpoint_and_other_threads_are_said(
    triplets: psycopg.Connection, home: Path, tiny_model: Path
) -> None:
    path = interrupted(triplets, home, tiny_model)
    state = path.read_text()
    path.write_text("{")
    with pytest.raises(TrainingError, match="cannot be read"):
        train(triplets, PLAIN, base=tiny_model)
    stored = json.loads(state)
    path.write_text(json.dumps({**stored, "machine": {**stored["machine"], "threads": 77, "processes": 2}}))
    progress = Interrupting(0)
    train(triplets, PLAIN, base=tiny_model, progress=progress)
    assert any("It ran with 2 processes, 77 threads and goes on with" in line for line in progress.said)


def test_tensorboard_has_each_step_once_however_often_it_is_interrupted(
    validated: psycopg.Connection, home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options, boards = replace(PLAIN, steps=12, evaluate_every=3), tmp_path / "boards"
    for after in (4, 6):  # once before the first checkpoint: steps that were written are taken again
        with suppress(KeyboardInterrupt):
            train(validated, options, base=tiny_model, progress=Interrupting(after), tensorboard=boards)
    result = train(validated, options, base=tiny_model, tensorboard=boards)
    (folder,) = boards.iterdir()
    assert folder.name == result.checkpoint.parent.name
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}, purge_orphaned_data=False)
    events.Reload()
    losses = validated.execute("SELECT step, loss FROM pgembed.training_metrics ORDER BY step").fetchall()
    assert [event.step for event in events.Scalars("train/loss")] == [step for step, _ in losses]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx([loss for _, loss in losses])
    assert [event.step for event in events.Scalars("validation/ndcg_10")] == [0, 3, 6, 9, 12]
    for tag in ("gradient_norm", "update_ratio", "anchor_cosine", "learning_rate", "triplets_per_second"):
        assert len(events.Scalars(f"train/{tag}")) == 12
