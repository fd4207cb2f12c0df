"""Vectors of real functions and of their docstrings, encoded once and kept: half an hour for 100,000 on two cores."""

import hashlib
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from functions import Function

from pgembed.encoders.artefact import load_manifest
from pgembed.encoders.onnx_encoder import OnnxEncoder

Floats = npt.NDArray[np.float32]

QUERIES = 500
_BATCH = 512
_SPREAD = 4000  # the queries' functions are among the first so many, and so in every sample


@dataclass(frozen=True)
class Encoded:
    """What a search is measured with."""

    functions: Floats
    """(N, D) float32, unit length, in the order of the functions; D is what the encoder fills of 2,560."""
    queries: Floats
    """(QUERIES, D): docstrings, embedded as queries."""


def encode(file: Path, artefact: Path, functions: list[Function]) -> None:
    """Bring `file` to the vectors of all `functions`; what an earlier run wrote is kept, and a longer one appends.

    Beside it: FILE.queries.npy, and FILE.json, which says of which encoder and functions they are.
    """
    manifest = load_manifest(artefact)
    width = sum(tower.dimensions for tower in manifest.spec.towers)
    encoder = OnnxEncoder.load(artefact, bulk=True)
    notes = file.with_suffix(".json")
    known = json.loads(notes.read_text()) if notes.exists() else {"rows": 0}
    done = int(known["rows"])
    said = {"encoder": manifest.spec.name, "fingerprint": manifest.fingerprint, "width": width}
    if done >= len(functions):
        print(f"{file} holds {done:,} already.")
        return
    if done and (said != {k: known[k] for k in said} or known["functions"] != _digest(functions[:done])):
        raise SystemExit(f"{file} holds vectors of another encoder or of other functions: name another file.")
    if not done:
        np.save(file.with_suffix(".queries.npy"), encoder.embed(_asked(functions), role="query")[:, :width])
    rows = np.zeros((len(functions), width), dtype=np.float32)
    if done:
        rows[:done] = np.load(file)[:done]
    started, first = time.perf_counter(), done
    for start in range(done, len(functions), _BATCH):
        end = min(start + _BATCH, len(functions))
        rows[start:end] = encoder.embed([f.content for f in functions[start:end]], role="passage")[:, :width]
        if end == len(functions) or (start // _BATCH) % 8 == 7:
            np.save(partial := file.with_suffix(".part.npy"), rows[:end])
            partial.replace(file)
            notes.write_text(json.dumps({**said, "rows": end, "functions": _digest(functions[:end])}))
            rate = (end - first) / (time.perf_counter() - started)
            print(f"{end:,} of {len(functions):,} functions, {rate:.0f} a second", flush=True)


def read_encoded(file: Path, functions: list[Function]) -> Encoded:
    """Return the vectors of as many of `functions` as `file` holds; checked where all that it holds are asked for."""
    notes = json.loads(file.with_suffix(".json").read_text())
    rows = min(int(notes["rows"]), len(functions))
    if rows == notes["rows"] and notes["functions"] != _digest(functions[:rows]):
        raise SystemExit(f"{file} holds vectors of other functions.")
    return Encoded(np.load(file, mmap_mode="r")[:rows], np.load(file.with_suffix(".queries.npy")))


def _asked(functions: list[Function]) -> list[str]:
    """Return the first paragraphs of QUERIES docstrings."""
    told = [f.docstring.split("\n\n")[0] for f in functions[:_SPREAD] if f.docstring and len(f.docstring.split()) >= 4]
    return random.Random(1).sample(told, QUERIES)  # noqa: S311 - a sample, not a secret


def _digest(functions: list[Function]) -> str:
    digest = hashlib.sha256()
    for function in functions:
        digest.update(function.sha256)
    return digest.hexdigest()
