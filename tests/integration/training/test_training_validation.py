"""What a run measures of itself, and what it says of that."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from pgembed.cli.app import app
from pgembed.cli.training_report import verdict
from pgembed.errors import MissingExtra, TrainingError
from pgembed.training.loop import train
from pgembed.training.options import TrainingOptions
from pgembed_code.installation import install_line

OPTIONS = TrainingOptions(
    view="made_up_triplets",
    loss="triplet",
    steps=24,
    batch=8,
    learning_rate=2e-3,
    precision="fp32",
    interpolate=0.5,
    evaluate_every=8,
    negatives="mined",
)


@pytest.fixture
def validated(triplets: psycopg.Connection) -> psycopg.Connection:
    """The made-up triplets, with the last 24 for validation."""
    triplets.execute("UPDATE pgembed.made_up_triplets SET split = 'validation' WHERE ordinal >= 16")
    return triplets


def by_hand(conn: psycopg.Connection, folder: Path) -> tuple[list[float], list[float], float]:
    """Return nDCG@10 and MRR@10 of each anchor in its order, and the loss, by sentence-transformers and by counting."""
    from sentence_transformers import SentenceTransformer

    rows = conn.execute(
        "SELECT anchor, positive, negative FROM pgembed.made_up_triplets WHERE split = 'validation' ORDER BY anchor"
    ).fetchall()
    bodies = sorted({text for _, positive, negative in rows for text in (positive, negative)})
    model = SentenceTransformer(str(folder), device="cpu")
    cosines = model.encode([row[0] for row in rows]) @ model.encode(bodies).T
    ndcg, mrr, losses = [], [], []
    for (_, positive, negative), cosine in zip(rows, cosines, strict=True):
        right = cosine[bodies.index(positive)]
        losses.append(max(0.0, 0.2 + cosine[bodies.index(negative)] - right))
        place = 1 + int((cosine > right).sum())
        ndcg.append(1 / math.log2(place + 1) if place <= 10 else 0.0)
        mrr.append(1 / place if place <= 10 else 0.0)
    return ndcg, mrr, float(np.mean(losses))


def test_base_and_result_are_measured_as_they_are_delivered(
    validated: psycopg.Connection, home: Path, tiny_model: Path
) -> None:
    result = train(validated, OPTIONS, base=tiny_model)
    rows = validated.execute(
        "SELECT step, queries, documents, ndcg_10, mrr_10, query_ndcg, query_mrr, loss"
        "  FROM pgembed.training_evaluations ORDER BY step"
    ).fetchall()
    assert [row[0] for row in rows] == [0, 8, 16, 24]
    for row, folder in ((rows[0], tiny_model), (rows[-1], result.checkpoint / "towers" / "tiny")):
        ndcg, mrr, loss = by_hand(validated, folder)
        assert row[1:3] == (24, 25)
        assert row[5] == pytest.approx(ndcg)
        assert row[6] == pytest.approx(mrr)
        assert row[3:5] == (pytest.approx(np.mean(ndcg)), pytest.approx(np.mean(mrr)))
        assert row[7] == pytest.approx(loss, rel=1e-4)
    assert result.validation is not None
    assert result.validation["base"]["ndcg@10"] == pytest.approx(rows[0][3])
    assert result.validation["tuned"]["ndcg@10"] == pytest.approx(rows[-1][3])
    test = result.validation["tests"]["ndcg@10"]
    assert test["difference"] == pytest.approx(rows[-1][3] - rows[0][3])
    assert result.better == (test["low"] > 0)
    assert rows[-1][7] != pytest.approx(rows[0][7], rel=1e-2)


def test_measuring_changes_no_bit_of_the_result(validated: psycopg.Connection, home: Path, tiny_model: Path) -> None:
    weights = [
        load_file(
            train(validated, replace(OPTIONS, evaluate_every=every), base=tiny_model).checkpoint
            / "towers" / "tiny" / "model.safetensors"
        )
        for every in (0, 3)
    ]  # fmt: skip
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_best_weights_are_those_of_the_step_that_measured_best(
    validated: psycopg.Connection, home: Path, tiny_model: Path
) -> None:
    # a rate that rises and stays: the model is best early, and a shorter run with the same rates ends there
    wild = replace(
        OPTIONS, learning_rate=0.02, schedule="constant", warmup_share=0.0, evaluate_every=2, keep_best="loss",
        interpolate=1.0,
    )  # fmt: skip
    result = train(validated, wild, base=tiny_model)
    losses = dict(validated.execute("SELECT step, loss FROM pgembed.training_evaluations WHERE step > 0").fetchall())
    assert result.best_step == min(losses, key=lambda step: (losses[step], step))
    assert result.best_step < 24
    short = train(validated, replace(wild, steps=result.best_step, keep_best=None), base=tiny_model)
    a, b = (load_file(run.checkpoint / "towers" / "tiny" / "model.safetensors") for run in (result, short))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert result.validation is not None
    assert result.validation["step"] == result.best_step
    stopped = train(validated, replace(wild, patience=2), base=tiny_model)
    course = [step for step, *_ in stopped.validation["course"]] if stopped.validation else []
    assert stopped.steps == course[-1] < 24
    assert stopped.best_step == stopped.steps - 4


def test_a_collapse_raises_the_alarm_and_is_not_called_better(
    validated: psycopg.Connection, database_url: str, home: Path, tiny_model: Path
) -> None:
    healthy = train(validated, OPTIONS, base=tiny_model)
    assert {alarm["name"] for alarm in healthy.alarms} & {"collapse", "loss at the margin", "large updates"} == set()
    told = CliRunner().invoke(
        app,
        ["train", "--base", str(tiny_model), "--view", "made_up_triplets", "--steps", "24", "--batch", "8",
         "--loss", "triplet", "--learning-rate", "3", "--interpolate", "1", "--precision", "fp32", "--dsn",
         database_url],
        catch_exceptions=False,
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    row = validated.execute("SELECT metrics FROM pgembed.training_runs ORDER BY id DESC LIMIT 1").fetchone()
    assert row is not None
    raised = {alarm["name"] for alarm in row[0]["alarms"]}
    assert {"collapse", "loss at the margin", "large updates"} <= raised
    assert row[0]["better"] is False
    assert "alarm: collapse, from step" in told.stdout
    assert "It is better" not in told.stdout
    last = validated.execute(
        "SELECT anchor_cosine, anchor_deviation FROM pgembed.training_metrics ORDER BY run_id DESC, step DESC LIMIT 1"
    ).fetchone()
    assert last is not None
    assert last[0] > 0.98
    assert last[1] < 0.2


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.01, 0.05, "is better than"), (-0.01, 0.07, "not shown to be better"), (-0.05, -0.01, "WORSE"),
     (0.0, 0.0, "not shown to be better")],
)  # fmt: skip
def test_better_is_said_only_of_what_is(low: float, high: float, said: str) -> None:
    test = {"difference": (low + high) / 2, "low": low, "high": high, "p": 0.5}
    validation = {"queries": 20, "tests": {"ndcg@10": test}, "better": low > 0, "worse": high < 0}
    assert said in verdict(validation)
    assert ("is better than" in verdict(validation)) == (low > 0)


def test_without_validation_triplets_nothing_is_claimed(
    triplets: psycopg.Connection, home: Path, tiny_model: Path
) -> None:
    result = train(triplets, replace(OPTIONS, steps=2), base=tiny_model)
    assert (result.better, result.validation) == (None, None)
    assert "not known" in verdict(result.validation)
    with pytest.raises(TrainingError, match="no validation triplets"):
        train(triplets, replace(OPTIONS, patience=1), base=tiny_model)


def test_other_validation_triplets_are_another_run(validated: psycopg.Connection, home: Path, tiny_model: Path) -> None:
    short = replace(OPTIONS, steps=2)
    first = train(validated, short, base=tiny_model)
    assert train(validated, short, base=tiny_model).already_done
    validated.execute("UPDATE pgembed.made_up_triplets SET anchor = anchor || ' Now.' WHERE ordinal = 20")
    assert train(validated, short, base=tiny_model).run_id != first.run_id


def test_the_lineage_leads_from_the_view_to_the_generation(
    validated: psycopg.Connection, home: Path, tiny_model: Path
) -> None:
    result = train(validated, replace(OPTIONS, steps=2, seed=3), base=tiny_model)
    view = (
        "SELECT view, filters ->> 'split', seed, base, tuned, better, generation_state, code_revision, run_id"
        "  FROM pgembed.training_lineage"
    )
    rows = validated.execute(view).fetchall()
    assert [row[:7] for row in rows] == [("made_up_triplets", "train", 3, "tiny", "tiny-tuned", result.better, None)]
    validated.execute(
        "INSERT INTO pgembed.generations (encoder_id, onnx_path, onnx_sha256, dims)"
        " SELECT encoder_id, '', '', 2560 FROM pgembed.training_runs"
    )
    assert [row[6] for row in validated.execute(view)] == ["filling"]


def test_adapters_come_out_as_plain_weights(validated: psycopg.Connection, home: Path, tiny_model: Path) -> None:
    from pgembed.encoders.folder import folder_spec
    from pgembed.training.model import load_model

    options = replace(OPTIONS, lora_rank=4, gradient_checkpointing=True, learning_rate=1e-2)
    result = train(validated, options, base=tiny_model)
    load_model(folder_spec(result.checkpoint))
    trained = load_file(result.checkpoint / "towers" / "tiny" / "model.safetensors")
    base = load_file(tiny_model / "model.safetensors")
    assert trained.keys() == base.keys()
    ranks = {
        int(torch.linalg.matrix_rank((trained[name] - base[name]).double(), rtol=1e-3))
        for name in base
        if name.startswith("encoder.") and base[name].dim() == 2
    }
    assert ranks == {4}
    assert torch.equal(trained["embeddings.word_embeddings.weight"], base["embeddings.word_embeddings.weight"])
    # what is delivered is what was measured
    row = validated.execute("SELECT query_ndcg FROM pgembed.training_evaluations WHERE step = 24").fetchone()
    assert row is not None
    assert row[0] == pytest.approx(by_hand(validated, result.checkpoint / "towers" / "tiny")[0])


@pytest.mark.parametrize("extra", ["tensorboard", "lora"])
def test_a_missing_library_is_named_before_anything_is_done(
    validated: psycopg.Connection, home: Path, tiny_model: Path, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "board" if extra == "tensorboard" else extra
    monkeypatch.setattr(f"pgembed.training.{module}.find_spec", lambda name: None)
    wants: dict[str, Any] = {"tensorboard": home} if extra == "tensorboard" else {}
    with pytest.raises(MissingExtra, match=rf"needs the extra '{extra}'") as caught:
        train(validated, replace(OPTIONS, lora_rank=2 * (extra == "lora")), base=tiny_model, **wants)
    assert install_line(extra) in str(caught.value)
    assert validated.execute("SELECT count(*) FROM pgembed.training_runs").fetchone() == (0,)


def test_gradients_are_checked_from_the_command_line(
    triplets: psycopg.Connection, database_url: str, home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [
        "train", "--gradcheck", "--base", str(tiny_model), "--view", "made_up_triplets", "--max-tokens", "16", "--loss",
        "triplet", "--margin", "0.5", "--matryoshka", "8", "--micro-batch", "2", "--dsn", database_url,
    ]  # fmt: skip
    good = CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False)
    assert good.exit_code == 0, good.output
    found = json.loads(good.stdout)
    assert found["passed"]
    assert found["largest_relative_error"] < 1e-4
    assert len(found["compared"]) == 25
    assert triplets.execute("SELECT count(*) FROM pgembed.training_runs").fetchone() == (0,)

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(_ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(_ctx: object, gradient: torch.Tensor) -> torch.Tensor:
            return 1.01 * gradient

    from pgembed.training import model

    right = model.pool
    monkeypatch.setattr(model, "pool", lambda *arguments: Wrong.apply(right(*arguments)))
    bad = CliRunner().invoke(app, command, catch_exceptions=False)
    assert bad.exit_code == 1
    assert "NOT equal: largest relative error 9.9e-03" in bad.stdout
