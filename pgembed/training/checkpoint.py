"""Checkpoints: folders that are complete or not there, in safetensors and JSON. Nothing is pickled.

step-000050/    state.json, weights.safetensors, optimiser.safetensors: what a resume needs
final/          pgembed.json (the encoder), training.json (how it came about), towers/<name>/ (a model folder each)
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pgembed import __version__
from pgembed.encoders.folder import SPEC
from pgembed.encoders.weights import locate
from pgembed.errors import TrainingError
from pgembed.training.model import EncoderModel

FINAL = "final"
_KEEP = 2

# What stands beside a model's weights in sentence-transformers' layout, so that a trained tower loads there too.
_COMPANIONS = ("*.json", "vocab.txt", "*/config.json")


@dataclass(frozen=True)
class State:
    """How far a run has come."""

    step: int = 0
    """Steps that are done."""
    skipped: int = 0
    """Those of them that changed nothing, because the loss or a gradient was not finite."""


def save_step(
    run: Path, state: State, model: EncoderModel, optimiser: torch.optim.Optimizer, identity: dict[str, Any]
) -> None:
    """Store everything that later steps depend on; older checkpoints go, but for the one before.

    `identity` is what a run must have in common with the one that goes on from here.
    """
    with _complete_folder(run / f"step-{state.step:06d}") as folder:
        save_file(_weights(model), folder / "weights.safetensors")
        tensors, numbers = {}, {}
        for index, values in optimiser.state_dict()["state"].items():
            for name, value in values.items():
                if torch.is_tensor(value) and value.dim():
                    tensors[f"{index}.{name}"] = value.contiguous()
                else:
                    numbers[f"{index}.{name}"] = float(value)
        save_file(tensors, folder / "optimiser.safetensors")
        stored = {"state": vars(state), "identity": identity, "numbers": numbers, "pgembed": __version__}
        _write_json(folder / "state.json", stored)
    for old in _steps(run)[:-_KEEP]:
        shutil.rmtree(old, ignore_errors=True)


def load_step(run: Path, model: EncoderModel, optimiser: torch.optim.Optimizer, identity: dict[str, Any]) -> State:
    """Load the newest checkpoint of `run` into model and optimiser; where there is none, leave them as they are.

    Raises:
        TrainingError: the checkpoint belongs to other options, weights or data (each part that differs is named), or
            cannot be read.
    """
    found = _steps(run)
    if not found:
        return State()
    folder = found[-1]
    try:
        stored = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "weights.safetensors")
        tensors = load_file(folder / "optimiser.safetensors")
        state = State(**stored["state"])
        before, numbers = dict(stored["identity"]), dict(stored["numbers"])
    except Exception as error:
        raise TrainingError(
            f"The checkpoint {folder} cannot be read: {error}",
            remedy="Remove that folder: the run goes on from an older one.",
        ) from error
    differing = [key for key in sorted({*before, *identity}) if before.get(key) != identity.get(key)]
    if differing:
        raise TrainingError(
            f"The checkpoint {folder} does not fit: "
            + "; ".join(f"{key} was {before.get(key)!r} and is {identity.get(key)!r}" for key in differing)
            + ".",
            remedy="Use the same data and options, or start anew with --fresh.",
        )
    model.load_state_dict(weights, strict=True)
    restored: dict[int, dict[str, Any]] = {}
    for key, value in (*tensors.items(), *((k, torch.tensor(v)) for k, v in numbers.items())):
        index, name = key.split(".", 1)
        restored.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": restored})
    return state


def remove_leftovers(run: Path) -> None:
    """Remove what a killed process had begun to write. Only for whom the run is locked."""
    for partial in run.glob(".*-*"):
        shutil.rmtree(partial, ignore_errors=True)


def remove_steps(run: Path) -> None:
    """Remove the checkpoints of a finished run: nothing goes on from them, and each holds the weights three times."""
    for folder in _steps(run):
        shutil.rmtree(folder, ignore_errors=True)


def save_final(
    run: Path, model: EncoderModel, base: dict[str, torch.Tensor], *, share: float, about: dict[str, Any]
) -> Path:
    """Store the trained encoder, its weights interpolated with the base's, and return its folder.

    `share` is the part of the trained weights: base + share · (trained − base).

    Source: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, equation 1.
    """
    trained = _weights(model)
    mixed = {
        name: torch.lerp(base[name], value, share) if value.is_floating_point() else value
        for name, value in trained.items()
    }
    with _complete_folder(run / FINAL) as folder:
        towers = []
        for n, tower in enumerate(model.spec.towers):
            place = folder / "towers" / tower.name
            _copy_companions(locate(tower), place)
            prefix = f"towers.{n}.transformer."
            own = {name.removeprefix(prefix): value for name, value in mixed.items() if name.startswith(prefix)}
            save_file(own, place / "model.safetensors", metadata={"format": "pt"})
            # relative, so that the folder can be moved
            towers.append(replace(tower, weights=f"folder:towers/{tower.name}"))
        name = f"{model.spec.name.removesuffix('-tuned')}-tuned"
        _write_json(folder / SPEC, replace(model.spec, name=name, towers=tuple(towers)).to_json())
        _write_json(folder / "training.json", about)
    return run / FINAL


def _copy_companions(source: Path, place: Path) -> None:
    place.mkdir(parents=True)
    for pattern in _COMPANIONS:
        for file in source.glob(pattern):
            if not file.name.endswith(".index.json"):  # names shards of weights that are one file here
                target = place / file.relative_to(source)
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, target)


def _weights(model: EncoderModel) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}


def _steps(run: Path) -> list[Path]:
    return sorted(run.glob("step-??????"))


@contextmanager
def _complete_folder(place: Path) -> Iterator[Path]:
    """Give a folder to fill that takes its name only when everything in it is on the disk."""
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        yield partial
        for path in [*partial.rglob("*"), partial]:
            _sync(path)
        partial.chmod(0o755)
        if place.exists():
            shutil.rmtree(place)
        partial.rename(place)
        _sync(place.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True), encoding="utf-8")
