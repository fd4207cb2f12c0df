import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from pgembed.cli.app import app
from pgembed.errors import TrainingError
from pgembed.training.options import TrainingOptions
from pgembed.training.precision import fastest_attention, resolve_precision


@pytest.mark.parametrize(
    "values",
    [
        {"steps": 0}, {"batch": -1}, {"margin": 0.0}, {"learning_rate": 0.0}, {"interpolate": 0.0},
        {"interpolate": 1.1}, {"warmup_share": 1.0}, {"max_tokens": 2}, {"loss": "hinge"}, {"distance": "dot"},
        {"precision": "fp16"}, {"negatives": "easy"}, {"schedule": "step"}, {"keep_best": "recall"}, {"micro_batch": 0},
        {"matryoshka": (8, 0)}, {"weight_decay": -0.1}, {"lora_rank": -1}, {"patience": 0}, {"keep_last": 0},
        {"evaluate_every": -1},
    ],
    ids=str,
)  # fmt: skip
def test_options_that_cannot_be_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(TrainingError, match=next(iter(values)) + "|" + str(next(iter(values.values())))):
        TrainingOptions(**values)  # type: ignore[arg-type]


def test_precision_follows_the_processor_unless_told(tmp_path: Path) -> None:
    for flags, expected in (("avx512f avx512_bf16", "bf16"), ("amx_bf16", "bf16"), ("avx512f avx2", "fp32")):
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: fpu {flags} rdpid\n")
        assert resolve_precision("auto", tmp_path / "cpuinfo") == expected
        assert resolve_precision("fp32", tmp_path / "cpuinfo") == "fp32"
    assert resolve_precision("auto", tmp_path / "absent") == "fp32"


def test_weights_cannot_be_chosen_without_validations() -> None:
    with pytest.raises(TrainingError, match="need validations"):
        TrainingOptions(evaluate_every=0, patience=2)
    assert TrainingOptions(patience=2).keeps == "score"
    assert TrainingOptions(patience=2, keep_best="loss").keeps == "loss"


def test_what_decides_a_run_is_stored_as_json_gives_it_back() -> None:
    options = TrainingOptions(matryoshka=(8, 16))
    stored = options.hyperparameters()
    assert json.loads(json.dumps(stored)) == stored
    told = {field.name for field in fields(options)} - set(stored)
    # what is stored in columns of its own, and what decides nothing
    assert told == {"view", "kind", "language", "seed", "checkpoint_every", "keep_last"}


@pytest.mark.parametrize("option", [("--margin", "0.3"), ("--distance", "euclidean"), ("--negatives", "mined")])
def test_an_option_that_the_loss_would_ignore_is_refused(option: tuple[str, str]) -> None:
    result = CliRunner().invoke(app, ["train", *option, "--dsn", " "])
    assert result.exit_code == 2
    assert "add --loss triplet" in result.output
    # with it the command gets as far as the database, which is not said here
    assert "--dsn is empty" in str(
        CliRunner().invoke(app, ["train", "--loss", "triplet", *option, "--dsn", " "]).exception
    )


@pytest.mark.parametrize(
    ("precision", "max_tokens", "device", "attention"),
    [
        ("bf16", 128, "cpu", "eager"),
        ("bf16", 1024, "cpu", "sdpa"),
        ("fp32", 128, "cpu", "sdpa"),
        ("bf16", 128, "cuda", "sdpa"),
    ],
)
def test_attention_is_fused_where_that_is_fast(precision: str, max_tokens: int, device: str, attention: str) -> None:
    assert fastest_attention(precision, max_tokens, torch.device(device)) == attention
