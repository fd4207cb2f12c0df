"""What training pays, and what it costs: base against fine-tuned, at home, on code never seen, and on people's queries.

    pgembed ingest --exclude tests/ PACKAGE…   # into one database the code to train on, into another what it never sees
    pgembed pairs
    python benchmarks/recipe.py --unseen DSN --dataset DIR --documents 5000 --shares 0.5 0.6
    python benchmarks/recipe.py --unseen DSN --dataset DIR --documents 1200 --queries 400 --shares 0.3 0.5 0.7 1 \\
        --trial default --trial code_share=0.0 --trial kind=code --trial loss=triplet,batch=24,steps=266

Fine-tunes minilm on the triplets of --dsn, once for each --trial (options of `pgembed train` by their names in
TrainingOptions; a finished run is not done again), averages the trained weights with the base's at each of --shares,
and measures each mixture beside the base, exactly:

home    docstrings of files held out from training, among --documents bodies of the same packages
unseen  the same of another database (--unseen), of which training saw nothing
code    a function finds those of the same name elsewhere, names masked: code to code
other   each --dataset, in BEIR's layout

Prints nDCG@10, the difference from the base with its 95% interval, and p of the paired bootstrap.
"""

import argparse
import ast
import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import psycopg
from safetensors.torch import load_file, save_file

from pgembed.cli.common import show_progress
from pgembed.config import settings
from pgembed.db.connection import connect
from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.encoders.presets import preset
from pgembed.encoders.weights import locate
from pgembed.evaluation.beir import read_beir
from pgembed.evaluation.dataset import Dataset, text_id
from pgembed.evaluation.evaluate import evaluate_dataset
from pgembed.evaluation.held_out import HeldOut, mask_name, read_held_out
from pgembed.evaluation.store import Evaluation, compare_evaluations
from pgembed.training.export import export_encoder
from pgembed.training.loop import train
from pgembed.training.options import TrainingOptions
from pgembed.training.runs import finished_checkpoint

_NAMESAKES = """
SELECT symbol, body FROM pgembed.code_chunks c JOIN pgembed.chunk_splits s ON s.chunk_id = c.id
 WHERE s.split = 'test' AND length(symbol) >= 6 AND symbol !~ '^__' AND length(body) BETWEEN 80 AND 4000
 ORDER BY c.sha256
"""


def main() -> None:
    """Print a line for each trial, share and data set."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--dsn", help="the database whose triplets are trained on")
    arguments.add_argument("--unseen", help="connection string of a database with other code")
    arguments.add_argument("--dataset", type=Path, nargs="*", default=[])
    arguments.add_argument("--documents", type=int, default=5000)
    arguments.add_argument("--queries", type=int, default=500)
    arguments.add_argument("--shares", type=float, nargs="+", default=[0.5])
    arguments.add_argument("--trial", action="append", help="option=value,…, or default; repeatable")
    options = arguments.parse_args()
    weights = locate(preset("minilm").towers[0]) / "model.safetensors"
    base = load_file(weights)
    with connect(options.dsn, vectors=True) as conn:
        datasets = [*_held_out(conn, options.unseen, options.documents, options.queries)]
        datasets += [_fewer(read_beir(folder), options.documents) for folder in options.dataset]
        encoder = OnnxEncoder.load(export_encoder("minilm", settings().models_dir / "minilm").path)
        before = [evaluate_dataset(conn, encoder, dataset) for dataset in datasets]
        print(f"{'trial':<40} {'share':>5}  " + "".join(f"{_shape(dataset):<42}" for dataset in datasets))
        print(f"{'base':<40} {'':>5}  " + "".join(f"{old.mean('ndcg@10'):<42.3f}" for old in before), flush=True)
        for told in options.trial or ["default"]:
            trained = train(conn, _options(told), progress=show_progress())
            for share in options.shares:
                with _mixed(conn, trained.run_id, base, share) as tuned:
                    after = [evaluate_dataset(conn, tuned, dataset) for dataset in datasets]
                figures = "".join(f"{_difference(old, new):<42}" for old, new in zip(before, after, strict=True))
                print(f"{told:<40} {share:>5}  {figures}", flush=True)


def _options(told: str) -> TrainingOptions:
    """Return the options of one trial, without validations: here another measure is taken."""
    values = {} if told == "default" else dict(part.partition("=")[::2] for part in told.split(","))
    known = {field.name for field in fields(TrainingOptions)}
    if unknown := set(values) - known:
        raise SystemExit(f"--trial: {', '.join(sorted(unknown))}: no such option; there are {', '.join(sorted(known))}")
    return replace(TrainingOptions(evaluate_every=0), **{name: _value(text) for name, text in values.items()})


def _value(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _held_out(conn: psycopg.Connection, unseen: str | None, documents: int, queries: int) -> Iterator[Dataset]:
    chosen = HeldOut("test", documents, queries, fill_from_others=True)
    yield replace(read_held_out(conn, chosen), name="home")
    if unseen:
        with connect(unseen, access="session") as other:
            yield replace(read_held_out(other, chosen), name="unseen")
    yield _namesakes(conn, documents // 2, queries)


def _namesakes(conn: psycopg.Connection, documents: int, queries: int) -> Dataset:
    """Return functions as queries, and as their answers those of the same name, two to six of a kind."""
    bodies: dict[str, dict[str, str]] = {}
    for symbol, body in conn.execute(_NAMESAKES):
        masked = mask_name(body, symbol)
        bodies.setdefault(symbol, {})[text_id(masked)] = masked
    chance = random.Random(0)  # noqa: S311 - a repeatable sample
    names = sorted(bodies)
    chance.shuffle(names)
    asked: dict[str, str] = {}
    found: dict[str, str] = {}
    judgements: dict[str, dict[str, int]] = {}
    for name in [name for name in names if 2 <= len(bodies[name]) <= 6][:queries]:
        first, *others = sorted(bodies[name])
        asked[first] = bodies[name][first]
        found |= {other: bodies[name][other] for other in others}
        judgements[first] = dict.fromkeys(others, 1)
    for name in names:
        if len(bodies[name]) == 1 and len(found) < documents:
            found |= bodies[name]
    return Dataset("code", asked, found, judgements)


def _fewer(dataset: Dataset, documents: int) -> Dataset:
    """Return the data set with at most so many documents: those that answer a query, and a sample of the others."""
    answers = {document for judged in dataset.judgements.values() for document in judged}
    others = sorted(set(dataset.documents) - answers)
    random.Random(0).shuffle(others)  # noqa: S311 - a repeatable sample
    kept = answers | set(others[: max(documents - len(answers), 0)])
    # all of them where that is little more: figures then compare with published ones
    if len(dataset.documents) <= documents * 1.3:
        return dataset
    return replace(dataset, documents={document: dataset.documents[document] for document in kept})


@contextmanager
def _mixed(conn: psycopg.Connection, run_id: int, base: dict, share: float) -> Iterator[OnnxEncoder]:
    """Give the encoder base + share · (trained − base); the run's result holds another share of the same difference."""
    _, folder = finished_checkpoint(conn, run_id)
    stored = json.loads((folder / "training.json").read_text(encoding="utf-8"))["interpolate"]
    result = load_file(folder / "towers" / "minilm" / "model.safetensors")
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "mixed"
        shutil.copytree(folder, place)
        weights = {
            name: base[name] + (value - base[name]) * (share / stored) if value.is_floating_point() else value
            for name, value in result.items()
            if name in base
        }
        save_file(weights, place / "towers" / "minilm" / "model.safetensors", metadata={"format": "pt"})
        yield OnnxEncoder.load(export_encoder(place, Path(scratch) / "artefact").path)


def _shape(dataset: Dataset) -> str:
    return f"{dataset.name}: {len(dataset.queries):,} / {len(dataset.documents):,}"


def _difference(old: Evaluation, new: Evaluation) -> str:
    test = compare_evaluations(old, new).tests["ndcg@10"]
    return f"{new.mean('ndcg@10'):.3f} {test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}] p {test.p:.4f}"


if __name__ == "__main__":
    main()
