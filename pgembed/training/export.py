"""The trained model as one ONNX graph, held against torch before anyone may use it.

Pooling, normalisation and the join to 2,560 dimensions are inside the graph. Reads a preset's weights, a folder or
a checkpoint; writes an artefact (see `encoders.artefact`).
"""

import errno
import json
import os
import shutil
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from pgembed import __version__
from pgembed.encoders.artefact import (
    MANIFEST,
    MODEL,
    OUTPUT,
    ROLE,
    Manifest,
    input_names,
    load_manifest,
    tokenizer_name,
)
from pgembed.encoders.batching import pad
from pgembed.encoders.end_of_text import tokenizer_json
from pgembed.encoders.half_written import begin_folder, left_behind
from pgembed.encoders.source import resolve_spec as resolve_spec  # the stages' commands take it from here
from pgembed.encoders.spec import ROLES, EncoderSpec
from pgembed.encoders.tokenizer import Tokenizer
from pgembed.encoders.weights import decisive_files, file_sha256, fingerprint, make_ready
from pgembed.errors import EncoderError, ExportError
from pgembed.progress import SILENT, Progress
from pgembed.training.model import EncoderModel, load_model

MINIMUM_COSINE = 0.9999
_OPSET = 17

# Short, long, empty, foreign, and code: lengths from the special tokens alone to beyond every limit.
PARITY_TEXTS: tuple[str, ...] = (
    "",
    "x",
    "return the sum of two numbers",
    "def add(a, b):\n    return a + b\n",
    "Größe der Überschrift – 見出しの大きさ 🙂",
    "SELECT chunk_id FROM pgembed.code_chunks WHERE language = 'python' ORDER BY id LIMIT 10;",
    "for (int i = 0; i < n; ++i) { total += values[i] * weights[i]; } // dot product\n" * 4,
    "class Node:\n    def __init__(self, value, left=None, right=None):\n        self.value = value\n" * 12,
    'if err != nil {\n\treturn nil, fmt.Errorf("open %s: %w", path, err)\n}\n' * 60,
)


def export_encoder(
    source: str | Path | EncoderSpec, out: Path, *, name: str | None = None, progress: Progress = SILENT
) -> Manifest:
    """Export `source` into the folder `out` and return its manifest; an intact export of the same model is kept.

    `source` is a name, a spec, an encoder file (`encoders.source`), or a folder: a checkpoint or a model in
    sentence-transformers' layout.

    Raises:
        ExportError: the graph does not give torch's vectors (cosine below 0.9999 on any text in any batch), or `out`
            holds something else than an export.
        EncoderError: the source cannot be loaded.
    """
    require_replaceable(out)
    spec = source if isinstance(source, EncoderSpec) else resolve_spec(source)
    if name is not None:
        spec = replace(spec, name=name)
    folders = make_ready(spec, progress)
    wanted = fingerprint(spec, folders)
    remove_left(out)
    if (existing := intact_export(out)) is not None and existing.fingerprint == wanted:
        progress.say(f"{out} holds this encoder already.")
        return existing
    progress.say(f"Exporting {spec.name} to {out} …")
    model = load_model(spec, folders)
    partial = begin_folder(out)
    try:
        for tower, folder in zip(spec.towers, folders, strict=True):
            (partial / tokenizer_name(tower)).write_text(tokenizer_json(tower, folder), encoding="utf-8")
        write_graph(model, partial / MODEL)
        parity = check_parity(model, partial)
        files = {path.name: file_sha256(path) for path in sorted(partial.iterdir())}
        sources = {
            tower.name: {str(path.relative_to(folder)): file_sha256(path) for path in decisive_files(tower, folder)}
            for tower, folder in zip(spec.towers, folders, strict=True)
        }
        manifest = Manifest(out, spec, wanted, files, parity, {**producer(), "weights": sources})
        write_manifest(manifest, partial)
        partial.chmod(0o755)
        replace_folder(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest


def intact_export(folder: Path) -> Manifest | None:
    """Return the manifest of the artefact in `folder`; None where there is none, or not all of it as exported."""
    try:
        return load_manifest(folder)
    except EncoderError:
        return None


def write_graph(model: EncoderModel, path: Path) -> None:
    """Trace `model` into one ONNX graph with dynamic batch and length.

    Weights of more than 2 GB, which a graph's file cannot hold, go into one file beside it.
    """
    spec = model.spec
    names = [name for pair in input_names(spec) for name in pair]
    # each tower has a length of its own: under one name the engine would reuse one's memory for another's
    axes = {name: {0: "batch", 1: f"tokens_{n}"} for n, pair in enumerate(input_names(spec)) for name in pair}
    # two rows of different lengths, so that nothing of the example's shape is taken for a constant
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    example = (ids, mask) * len(spec.towers)
    if spec.takes_role:
        names, axes, example = [*names, ROLE], {**axes, ROLE: {0: "batch"}}, (*example, torch.tensor([0, 1]))
    beside = set(path.parent.iterdir())
    with warnings.catch_warnings():
        # the tracer warns of each Python branch that it fixed, and of being the older exporter; parity is checked below
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            example,
            str(path),
            input_names=names,
            output_names=[OUTPUT],
            dynamic_axes={**axes, OUTPUT: {0: "batch"}},
            opset_version=_OPSET,
            do_constant_folding=True,
            dynamo=False,
        )
    if scattered := set(path.parent.iterdir()) - beside - {path}:
        gather_weights(path)
        for file in scattered:
            file.unlink()


def gather_weights(path: Path) -> None:
    """Store a graph's weights in one file beside it: the exporter makes a file of each beyond 2 GB."""
    import onnx

    model = onnx.load(path)
    data = f"{path.name}.data"
    onnx.save_model(model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=data)


def check_parity(model: EncoderModel, artefact: Path, texts: Sequence[str] = PARITY_TEXTS) -> dict[str, Any]:
    """Compare the graph in `artefact` with torch over lengths, paddings and batch sizes.

    Returns the least cosine, the largest absolute difference and how many vectors were compared.

    Raises:
        ExportError: a cosine is below 0.9999.
    """
    session = onnxruntime.InferenceSession(str(artefact / MODEL), providers=["CPUExecutionProvider"])
    towers = [
        Tokenizer(artefact / tokenizer_name(tower), max_tokens=tower.max_tokens).encode(list(texts))
        for tower in model.spec.towers
    ]
    least, largest, compared = 1.0, 0.0, 0
    everything = list(range(len(texts)))
    batches = [everything, everything[::-1], *[[n] for n in everything], *[[0, n] for n in everything[1:]]]
    names = [name for pair in input_names(model.spec) for name in pair]
    for number, batch in enumerate(batches):
        arrays = [array for ids in towers for array in pad([ids[n] for n in batch])]
        feed = dict(zip(names, arrays, strict=True))
        if model.spec.takes_role:  # both roles in one batch, and each text in either
            feed[ROLE] = np.array([(number + n) % len(ROLES) for n in range(len(batch))], dtype=np.int64)
        with torch.inference_mode():
            expected = model(*map(torch.from_numpy, feed.values())).numpy()
        found = session.run([OUTPUT], feed)[0]
        cosines = (expected * found).sum(axis=1) / (
            np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
        ).clip(1e-12)
        least = min(least, float(np.nan_to_num(cosines, nan=-1.0).min()))
        largest = max(largest, float(np.nan_to_num(np.abs(expected - found), nan=np.inf).max()))
        compared += len(batch)
    if least < MINIMUM_COSINE:
        raise ExportError(
            f"The ONNX graph does not give torch's vectors: cosine {least:.6f} (at least {MINIMUM_COSINE} is asked), "
            f"largest difference {largest:.2g}.",
            remedy="Nothing was written. Please report the model and the versions of torch and onnxruntime.",
        )
    return {"least_cosine": least, "largest_difference": largest, "vectors": compared}


def producer() -> dict[str, Any]:
    """Return with what a float32 graph is made."""
    return {
        "pgembed": __version__,
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "opset": _OPSET,
        "precision": "float32",
    }


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write encoder.json: the last file of an artefact, which makes it one."""
    with (folder / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump(manifest.to_json(), file, indent=2)
        file.flush()
        os.fsync(file.fileno())


def require_replaceable(place: Path) -> None:
    """Refuse a place that holds something of the user's: what is exported takes all of it.

    Raises:
        ExportError: it is there, and neither an empty folder nor an earlier export.
    """
    if not place.exists() or (place / MANIFEST).is_file():
        return
    if not place.is_dir() or any(place.iterdir()):
        what = "holds other files than an export's" if place.is_dir() else "is no folder"
        raise ExportError(
            f"{place} {what}: the export would replace it.",
            remedy="Name a folder that is not there yet, an empty one, or that of an earlier export.",
        )


def replace_folder(new: Path, place: Path) -> None:
    """Put `new` where `place` is. A reader sees the old folder, for an instant none, then the new one.

    Where another process does the same at the same time, the last one's stays.
    """
    while True:
        old = begin_folder(place)
        with suppress(FileNotFoundError):
            place.rename(old / place.name)
        try:
            new.rename(place)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                with suppress(OSError):
                    (old / place.name).rename(place)
                raise
        else:
            return
        finally:
            shutil.rmtree(old, ignore_errors=True)


def remove_left(place: Path) -> None:
    """Remove what processes that were killed had begun to write for `place`: each may hold all the weights."""
    for path in left_behind(place.parent, place.name):
        shutil.rmtree(path, ignore_errors=True)
