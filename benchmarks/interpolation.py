"""How much of the trained weights to keep: what each share gains on the user's held-out code and loses elsewhere.

    python benchmarks/interpolation.py --run 1 --shares 0.2 0.3 0.4 --dataset DIR

Takes a finished run of `pgembed train` or the quickstart on the base minilm, reads the trained weights out of its
result (base + share · difference), mixes them anew, and measures every mixture beside the base; --dataset is in BEIR's
layout.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from safetensors.torch import load_file, save_file

from pgembed.config import settings
from pgembed.db.connection import connect
from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.encoders.presets import preset
from pgembed.encoders.weights import locate
from pgembed.evaluation.beir import read_beir
from pgembed.evaluation.evaluate import evaluate_dataset
from pgembed.evaluation.held_out import HeldOut, read_held_out
from pgembed.evaluation.store import compare_evaluations
from pgembed.training.export import export_encoder
from pgembed.training.runs import finished_checkpoint


def main() -> None:
    """Print a line for each share and data set: nDCG@10 and its difference from the base, with the 95% interval."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--dsn")
    arguments.add_argument("--run", type=int, help="a finished training run; default: the newest")
    arguments.add_argument("--shares", type=float, nargs="+", default=[0.2, 0.3, 0.4, 0.6])
    arguments.add_argument("--dataset", type=Path, nargs="*", default=[])
    options = arguments.parse_args()
    base = load_file(locate(preset("minilm").towers[0]) / "model.safetensors")
    with connect(options.dsn, vectors=True) as conn, tempfile.TemporaryDirectory() as scratch:
        _, folder = finished_checkpoint(conn, options.run)
        stored = json.loads((folder / "training.json").read_text(encoding="utf-8"))["interpolate"]
        mixed = load_file(folder / "towers" / "minilm" / "model.safetensors")
        datasets = [read_held_out(conn, HeldOut("test", 1000, 400)), *map(read_beir, options.dataset)]
        encoder = OnnxEncoder.load(export_encoder("minilm", settings().models_dir / "minilm").path)
        before = [evaluate_dataset(conn, encoder, dataset) for dataset in datasets]
        for share in options.shares:
            place = Path(scratch) / f"share-{share}"
            shutil.copytree(folder, place)
            weights = {
                name: base[name] + (value - base[name]) * (share / stored) if value.is_floating_point() else value
                for name, value in mixed.items()
                if name in base
            }
            save_file(weights, place / "towers" / "minilm" / "model.safetensors", metadata={"format": "pt"})
            tuned = OnnxEncoder.load(export_encoder(place, Path(scratch) / f"artefact-{share}").path)
            for dataset, old in zip(datasets, before, strict=True):
                new = evaluate_dataset(conn, tuned, dataset)
                test = compare_evaluations(old, new).tests["ndcg@10"]
                mean, gain = new.mean("ndcg@10"), f"{test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}]"
                print(f"{share:>5} {dataset.name:<20} {mean:.3f}  {gain}", flush=True)


if __name__ == "__main__":
    main()
