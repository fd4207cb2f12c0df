import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import torch
from safetensors.torch import load_file, save_file

from pgembed.encoders.tokenizer import Tokenizer
from pgembed.errors import TrainingError
from pgembed.training.loop import train
from pgembed.training.options import TrainingOptions
from pgembed.training.runs import finished_checkpoint

OPTIONS = TrainingOptions(
    view="made_up_triplets",
    loss="triplet",
    steps=24,
    batch=8,
    checkpoint_every=5,
    learning_rate=2e-3,
    precision="fp32",
    interpolate=1.0,
    negatives="mined",
)


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "towers" / "tiny" / "model.safetensors")


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_lowers_the_loss_and_leaves_its_lineage(
    triplets: psycopg.Connection, home: Path, tiny_model: Path
) -> None:
    result = train(triplets, OPTIONS, base=tiny_model)
    assert (result.steps, result.triplets, result.available, result.skipped_steps) == (24, 192, 32, 0)
    assert result.first_loss is not None
    assert result.last_loss is not None
    assert result.last_loss < 0.7 * result.first_loss
    row = triplets.execute(
        "SELECT r.state, r.view, r.filters, r.hyperparameters, b.name, t.name, r.checkpoint_path"
        "  FROM pgembed.training_runs r JOIN pgembed.encoders b ON b.id = r.base_encoder_id"
        "  JOIN pgembed.encoders t ON t.id = r.encoder_id WHERE r.id = %s",
        (result.run_id,),
    ).fetchone()
    assert row is not None
    assert row[:2] == ("finished", "made_up_triplets")
    assert row[2] == {"split": "train", "kind": "docstring", "language": None}
    assert row[3]["margin"] == 0.2
    assert row[3]["precision"] == "fp32"
    assert row[4:] == ("tiny", "tiny-tuned", str(result.checkpoint))
    steps = triplets.execute("SELECT step, learning_rate FROM pgembed.training_metrics ORDER BY step").fetchall()
    assert [step for step, _ in steps] == list(range(1, 25))
    assert max(rate for _, rate in steps) == pytest.approx(2e-3)
    # nothing but the result is left on the disk
    assert [path.name for path in result.checkpoint.parent.iterdir()] == ["final"]


def test_a_finished_run_is_not_done_twice_but_other_data_or_options_are_another_run(
    triplets: psycopg.Connection, home: Path, tiny_model: Path
) -> None:
    short = TrainingOptions(view="made_up_triplets", steps=2, batch=8, precision="fp32")
    first = train(triplets, short, base=tiny_model)
    again = train(triplets, short, base=tiny_model)
    assert again.already_done
    assert (again.run_id, again.checkpoint) == (first.run_id, first.checkpoint)
    assert finished_checkpoint(triplets) == (first.run_id, first.checkpoint)
    assert train(triplets, short, base=tiny_model, fresh=True).run_id != first.run_id
    other = TrainingOptions(view="made_up_triplets", steps=2, batch=8, precision="fp32", seed=1)
    assert not train(triplets, other, base=tiny_model).already_done
    triplets.execute("UPDATE pgembed.made_up_triplets SET anchor = anchor || ' Now.' WHERE anchor LIKE 'Read%'")
    assert not train(triplets, short, base=tiny_model).already_done


def test_a_checkpoint_that_is_not_what_was_trained_is_refused(
    triplets: psycopg.Connection, home: Path, tiny_model: Path
) -> None:
    run = train(triplets, TrainingOptions(view="made_up_triplets", steps=2, batch=8), base=tiny_model)
    (model,) = run.checkpoint.rglob("model.safetensors")
    content = bytearray(model.read_bytes())
    content[-64:] = bytes(64)
    model.write_bytes(content)
    with pytest.raises(TrainingError, match=f"The checkpoint of run {run.run_id} is not what was trained"):
        finished_checkpoint(triplets)


def test_the_same_run_gives_the_same_weights(triplets: psycopg.Connection, home: Path, tiny_model: Path) -> None:
    first, second = (train(triplets, OPTIONS, base=tiny_model, fresh=True) for _ in range(2))
    assert first.run_id != second.run_id
    assert equal(weights(first.checkpoint), weights(second.checkpoint))


def test_weights_are_interpolated_with_the_base(triplets: psycopg.Connection, home: Path, tiny_model: Path) -> None:
    trained = weights(train(triplets, OPTIONS, base=tiny_model).checkpoint)
    changes = {**vars(OPTIONS), "interpolate": 0.25}
    mixed = weights(train(triplets, TrainingOptions(**changes), base=tiny_model).checkpoint)
    base = load_file(tiny_model / "model.safetensors")
    assert base.keys() == mixed.keys()
    moved = 0.0
    for name in base:
        torch.testing.assert_close(mixed[name], 0.75 * base[name] + 0.25 * trained[name], atol=1e-6, rtol=1e-5)
        moved = max(moved, float((trained[name] - base[name]).abs().max()))
    assert moved > 1e-3


def test_a_trained_tower_loads_in_sentence_transformers_and_exports_to_the_same_vectors(
    triplets: psycopg.Connection, home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    from pgembed.encoders.onnx_encoder import OnnxEncoder
    from pgembed.training.export import export_encoder

    result = train(triplets, OPTIONS, base=tiny_model)
    # the checkpoint may be moved before it is exported
    moved = result.checkpoint.rename(tmp_path / "moved")
    manifest = export_encoder(moved, tmp_path / "artefact", name="run-1")
    assert manifest.spec.name == "run-1"
    known = triplets.execute("SELECT id FROM pgembed.encoders WHERE fingerprint = %s", (manifest.fingerprint,))
    assert known.rowcount == 1
    texts = ["Read the file.", "def read_file(x):\n    return x"]
    found = OnnxEncoder.load(manifest.path, threads=1).embed(texts, role="query")
    expected = SentenceTransformer(str(moved / "towers" / "tiny"), device="cpu").encode(texts)
    assert abs(found[:, :32] - expected).max() < 1e-5


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_triplets(
    triplets: psycopg.Connection, home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(tiny_model, tmp_path / "tiny")
    tokens = Tokenizer(broken / "tokenizer.json", max_tokens=16).encode(["socket", "tree"])
    values = load_file(broken / "model.safetensors")
    # every batch of 8 has a "socket"; "tree" alone would leave good steps between
    values["embeddings.word_embeddings.weight"][tokens[0][1]] = torch.nan
    save_file(values, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingError, match=r"3 steps in a row, up to step 3\. .*ordinals .*\d+, \d+"):
        train(triplets, OPTIONS, base=broken)
    row = triplets.execute("SELECT state, error FROM pgembed.training_runs").fetchone()
    assert row is not None
    assert row[0] == "failed"
    assert "not finite" in row[1]


def test_a_step_that_is_not_finite_is_skipped_and_counted(
    triplets: psycopg.Connection, home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(tiny_model, tmp_path / "tiny")
    token = Tokenizer(broken / "tokenizer.json", max_tokens=16).encode(["zebra"])[0][1]
    values = load_file(broken / "model.safetensors")
    values["embeddings.word_embeddings.weight"][token] = torch.nan
    save_file(values, broken / "model.safetensors", metadata={"format": "pt"})
    triplets.execute("UPDATE pgembed.made_up_triplets SET anchor = 'Zebra.' WHERE anchor LIKE 'Read the file%'")
    options = TrainingOptions(**{**vars(OPTIONS), "steps": 8, "checkpoint_every": 3})
    result = train(triplets, options, base=broken)
    assert result.skipped_steps == 2  # 32 triplets, 8 a step: the bad one comes twice
    assert triplets.execute("SELECT count(*) FROM pgembed.training_metrics").fetchone() == (6,)
    trained = weights(result.checkpoint)
    trained["embeddings.word_embeddings.weight"][token] = 0
    assert all(value.isfinite().all() for value in trained.values())


def test_a_triplet_without_a_text_is_refused(triplets: psycopg.Connection, home: Path, tiny_model: Path) -> None:
    triplets.execute("UPDATE pgembed.made_up_triplets SET anchor = NULL WHERE anchor LIKE 'Close%'")
    with pytest.raises(TrainingError, match="5 triplets that lack a text"):
        train(triplets, OPTIONS, base=tiny_model)


def test_no_triplets_and_no_view_are_said(conn: psycopg.Connection, home: Path, tiny_model: Path) -> None:
    with pytest.raises(TrainingError, match="gives no triplets"):
        train(conn, TrainingOptions(), base=tiny_model)  # the view of mining, empty
    with pytest.raises(TrainingError, match="not a view of triplets"):
        train(conn, TrainingOptions(view='absent"; DROP TABLE x'), base=tiny_model)


def test_a_run_is_trained_by_one_process_at_a_time(
    triplets: psycopg.Connection, database_url: str, home: Path, tiny_model: Path
) -> None:
    class Rival:
        """Tries the same while the run is at work."""

        error = ""

        def say(self, text: str) -> None: ...
        def note(self, text: str) -> None: ...

        def advance(self, amount: int = 1) -> None:  # noqa: ARG002
            if not self.error:
                with psycopg.connect(database_url, autocommit=True) as other, pytest.raises(TrainingError) as caught:
                    train(other, OPTIONS, base=tiny_model)
                self.error = str(caught.value)

        @contextmanager
        def task(self, *_: object) -> Iterator["Rival"]:
            yield self

    rival = Rival()
    result = train(triplets, OPTIONS, base=tiny_model, progress=rival)
    assert f"Run {result.run_id} is being trained" in rival.error
    state = triplets.execute("SELECT state FROM pgembed.training_runs").fetchall()
    assert state == [("finished",)]
