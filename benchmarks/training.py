"""Training beside sentence-transformers' trainer: the same model, triplets, loss, batch, tokens, precision and order.

    python benchmarks/training.py --steps 12 --rounds 3 --precision fp32 bf16 --loss triplet in-batch

Each run is a process of its own, ours and theirs in turn, so that a machine's bad minutes fall on both; a figure is the
median over the rounds. Reads functions of the standard library: a docstring, its body, and another body of the same
file. Ours is all of `pgembed train` (triplets from an embedded Postgres, metrics into it). The speed is that between
the end of step --warm and the last, and the losses of all steps are compared: if they differ, the work did.

The same work: theirs without dropout, as ours; a constant rate; Adam without decay; clipping at 1. `--tiny` takes a
random model of two layers instead of MiniLM's weights.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from functions import read_functions

MARGIN, SCALE, RATE = 0.2, 20.0, 2e-5
Triplets = list[tuple[str, str, str]]


def main() -> None:
    """Print a line for each precision and loss: triplets a second of both, their ratio, memory, and the losses."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--steps", type=int, default=12)
    arguments.add_argument("--warm", type=int, default=3, help="first steps that are not timed")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--batch", type=int, default=24)
    arguments.add_argument("--max-tokens", type=int, default=128)
    arguments.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    arguments.add_argument("--loss", nargs="+", choices=["triplet", "in-batch"], default=["triplet", "in-batch"])
    arguments.add_argument("--tiny", action="store_true")
    arguments.add_argument("--profile", action="store_true", help="ours alone, by torch's profiler")
    arguments.add_argument("--worker", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.worker:
        print(json.dumps(_work(json.loads(options.worker))))
        return
    _tell_versions()
    with tempfile.TemporaryDirectory(prefix="pgembed-benchmark-") as place:
        Path(place).chmod(0o755)  # as root the embedded server runs as another user
        triplets = _triplets(options.batch * options.steps)
        (Path(place) / "triplets.json").write_text(json.dumps(triplets), encoding="utf-8")
        model = _model(Path(place), tiny=options.tiny)
        for precision in options.precision:
            for loss in options.loss:
                told = {
                    "place": place, "model": model, "precision": precision, "loss": loss, "steps": options.steps,
                    "warm": options.warm, "batch": options.batch, "max_tokens": options.max_tokens,
                }  # fmt: skip
                if options.profile:
                    print(_run({**told, "who": "ours", "profile": True})["profile"])
                else:
                    _compare(told, options.rounds)


def _compare(told: dict[str, Any], rounds: int) -> None:
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
    for number in range(rounds):
        for who in ("ours", "theirs") if number % 2 else ("theirs", "ours"):
            runs[who].append(_run({**told, "who": who}))
    rate = {who: statistics.median(run["rate"] for run in found) for who, found in runs.items()}
    own = {who: statistics.median(run["cpu_rate"] for run in found) for who, found in runs.items()}
    memory = {who: statistics.median(run["peak_mb"] for run in found) for who, found in runs.items()}
    ratios = [ours["rate"] / theirs["rate"] for ours, theirs in zip(runs["ours"], runs["theirs"], strict=True)]
    losses = [found[0]["losses"] for found in runs.values()]
    furthest = max(abs(a - b) for a, b in zip(*losses, strict=True))
    print(
        f"{told['precision']} {told['loss']:9} batch {told['batch']}, {told['max_tokens']} tokens: "
        f"ours {rate['ours']:.1f}, theirs {rate['theirs']:.1f} triplets/s, ratio {rate['ours'] / rate['theirs']:.2f} "
        f"(of the rounds {', '.join(f'{ratio:.2f}' for ratio in ratios)}); a second of processor time "
        f"{own['ours']:.2f} and {own['theirs']:.2f}, ratio {own['ours'] / own['theirs']:.2f}; "
        f"peak memory {memory['ours']:,.0f} and {memory['theirs']:,.0f} MB; "
        f"loss of the first step {losses[0][0]:.5f} and {losses[1][0]:.5f}, of the last "
        f"{losses[0][-1]:.5f} and {losses[1][-1]:.5f}, furthest apart {furthest:.1e}; load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def _run(told: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, "--worker", json.dumps(told)], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _work(told: dict[str, Any]) -> dict[str, Any]:
    triplets = json.loads((Path(told["place"]) / "triplets.json").read_text(encoding="utf-8"))
    found = _ours(told, triplets) if told["who"] == "ours" else _theirs(told, triplets)
    stamps = found.pop("stamps")
    seconds, processor = (end - begin for begin, end in zip(stamps[told["warm"] - 1], stamps[-1], strict=True))
    triplets_timed = told["batch"] * (told["steps"] - told["warm"])
    return {
        **found,
        "rate": triplets_timed / seconds,
        "cpu_rate": triplets_timed / processor,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _now() -> tuple[float, float]:
    """Return the time, and the processor's time of all of this process's threads: what others do is not in it."""
    return time.perf_counter(), time.process_time()


class _Stamps:
    """Progress that notes when each step is done."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def say(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def advance(self, amount: int = 1) -> None:
        if amount:  # 0: a run says where it begins
            self.times.append(_now())

    @contextmanager
    def task(self, *_: object) -> Iterator["_Stamps"]:
        yield self


def _ours(told: dict[str, Any], triplets: Triplets) -> dict[str, Any]:
    home = Path(tempfile.mkdtemp(dir=told["place"]))
    home.chmod(0o755)
    os.environ["PGEMBED_HOME"] = str(home)
    from pgembed.db.connection import connect
    from pgembed.db.embedded import EmbeddedServer
    from pgembed.db.migrations import upgrade
    from pgembed.training.loop import train
    from pgembed.training.options import TrainingOptions

    options = TrainingOptions(
        view="benchmark", steps=told["steps"], batch=told["batch"], loss=told["loss"], negatives="mined", margin=MARGIN,
        scale=SCALE, learning_rate=RATE, schedule="constant", warmup_share=0.0, max_tokens=told["max_tokens"],
        precision=told["precision"], interpolate=1.0, evaluate_every=0, checkpoint_every=told["steps"] + 1, seed=0,
    )  # fmt: skip
    server = EmbeddedServer(home / "postgres")
    dsn = server.start()
    try:
        upgrade(dsn)
        with connect(dsn, access="session") as conn:
            conn.execute(
                "CREATE TABLE pgembed.benchmark (ordinal bigint PRIMARY KEY, kind text DEFAULT 'docstring', split text"
                " DEFAULT 'train', language text, anchor text, positive text, negative text)"
            )
            # the seed says where a run begins: so that it begins with theirs, the first is put there
            from random import Random

            begin = Random(options.seed).randrange(len(triplets))  # noqa: S311 - as pgembed.training.data has it
            rows = [((n + begin) % len(triplets), *row) for n, row in enumerate(triplets)]
            insert = "INSERT INTO pgembed.benchmark (ordinal, anchor, positive, negative) VALUES (%s, %s, %s, %s)"
            conn.cursor().executemany(insert, rows)
            stamps = _Stamps()
            with _profiled(told) as profile:
                train(conn, options, base=told["model"], progress=stamps)
            losses = conn.execute("SELECT loss FROM pgembed.training_metrics ORDER BY step").fetchall()
    finally:
        server.stop()
    return {"stamps": stamps.times, "losses": [loss for (loss,) in losses], "profile": profile()}


@contextmanager
def _profiled(told: dict[str, Any]) -> Iterator[Any]:
    if not told.get("profile"):
        yield lambda: ""
        return
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        yield lambda: found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25)


def _theirs(told: dict[str, Any], triplets: Triplets) -> dict[str, Any]:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.sentence_transformer.losses import (
        MultipleNegativesRankingLoss,
        TripletDistanceMetric,
        TripletLoss,
    )
    from torch.utils.data import BatchSampler, SequentialSampler
    from transformers import TrainerCallback

    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = SentenceTransformer(_weights(told["model"]), device="cpu", config_kwargs=no_dropout)
    model.max_seq_length = told["max_tokens"]
    stamps: list[tuple[float, float]] = []
    losses: list[float] = []

    class Callback(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: object, **__: object) -> None:
            stamps.append(_now())

    if told["loss"] == "triplet":
        loss = TripletLoss(model, distance_metric=TripletDistanceMetric.COSINE, triplet_margin=MARGIN)
    else:
        loss = MultipleNegativesRankingLoss(model, scale=SCALE)
    loss.register_forward_hook(lambda _module, _inputs, value: losses.append(float(value.detach())))
    arguments = Arguments(
        output_dir=tempfile.mkdtemp(dir=told["place"]), max_steps=told["steps"], report_to="none", disable_tqdm=True,
        per_device_train_batch_size=told["batch"], learning_rate=RATE, lr_scheduler_type="constant", weight_decay=0.0,
        max_grad_norm=1.0, bf16=told["precision"] == "bf16", use_cpu=True, save_strategy="no", logging_strategy="no",
        batch_sampler=lambda dataset, batch_size, drop_last, **_: BatchSampler(
            SequentialSampler(dataset), batch_size, drop_last
        ),
    )  # fmt: skip
    rows = {
        name: list(column)
        for name, column in zip(("anchor", "positive", "negative"), zip(*triplets, strict=True), strict=True)
    }
    trainer = SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_dict(rows), loss=loss, callbacks=[Callback()]
    )
    trainer.train()
    return {"stamps": stamps, "losses": losses}


def _triplets(count: int) -> Triplets:
    """Docstring, its body, and another body of the same file; every docstring and body once, if there are enough."""
    by_file: dict[str, list[Any]] = {}
    for function in read_functions(12_000, only_standard=True):
        if function.docstring and len(function.docstring.split()) >= 5 and 3 <= function.body.count("\n") <= 60:
            by_file.setdefault(function.path, []).append(function)
    found = [
        (one.docstring.split("\n\n")[0], one.body, members[n - 1].body)
        for members in by_file.values()
        if len(members) > 1
        for n, one in enumerate(members)
    ]
    # as they come from a view in the order of a hash: neighbours have nothing in common
    found.sort(key=lambda row: hash_of(row[0]))
    if len(found) < count:
        raise SystemExit(f"The standard library gives {len(found):,} triplets, {count:,} are asked for.")
    return found[:count]


def hash_of(text: str) -> str:
    """Return a hash that is the same in every process."""
    import hashlib

    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _model(place: Path, *, tiny: bool) -> str:
    if not tiny:
        return "minilm"
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from fixtures_encoders import make_tiny_model

    return str(make_tiny_model(place / "tiny"))


def _weights(model: str) -> str:
    from pgembed.encoders.presets import preset
    from pgembed.encoders.weights import locate

    return str(locate(preset("minilm").towers[0])) if model == "minilm" else model


def _tell_versions() -> None:
    from importlib.metadata import version

    import torch

    names = ("torch", "transformers", "sentence-transformers", "accelerate")
    told = ", ".join(f"{name} {version(name)}" for name in names)
    print(f"{told}; {torch.get_num_threads()} threads; load {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
