"""Checkpoints: folders that are complete or not there, in safetensors and JSON. Nothing is pickled.

    step-000050/    state.json, weights.safetensors, optimiser.safetensors     what a resume needs
    final/          spec.json, towers/<name>/{config.json, tokenizer.json, model.safetensors}, training.json
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pgembed.encoders.spec import EncoderSpec
from pgembed.encoders.weights import locate
from pgembed.errors import TrainingError
from pgembed.training.model import EncoderModel

FINAL = "final"
SPEC = "spec.json"
_KEEP = 2


def save_step(run: Path, step: int, model: EncoderModel, optimiser: torch.optim.Optimizer, identity: dict[str, Any]) -> None:
    """Store everything that the steps after `step` depend on; older ones go, but for the one before."""
    with _complete_folder(run / f"step-{step:06d}") as folder:
        save_file(_weights(model), folder / "weights.safetensors")
        tensors, numbers = {}, {}
        for index, values in optimiser.state_dict()["state"].items():
            for name, value in values.items():
                if torch.is_tensor(value) and value.dim():
                    tensors[f"{index}.{name}"] = value.contiguous()
                else:
                    numbers[f"{index}.{name}"] = float(value)
        save_file(tensors, folder / "optimiser.safetensors")
        _write_json(folder / "state.json", {"step": step, "identity": identity, "numbers": numbers})
    for old in _steps(run)[:-_KEEP]:
        shutil.rmtree(old, ignore_errors=True)


def load_step(run: Path, model: EncoderModel, optimiser: torch.optim.Optimizer, identity: dict[str, Any]) -> int:
    """Load the newest checkpoint of `run` into model and optimiser; return its step, 0 where there is none.

    Raises:
        TrainingError: the checkpoint belongs to another configuration, model or data; each part that differs is named.
    """
    found = _steps(run)
    if not found:
        return 0
    folder = found[-1]
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "weights.safetensors")
        tensors = load_file(folder / "optimiser.safetensors")
    except Exception as error:  # noqa: BLE001 - safetensors raises a class of its own for broken files
        raise TrainingError(
            f"The checkpoint {folder} cannot be read: {error}", remedy="Remove that folder: the run goes on from an older one."
        ) from error
    differing = [key for key in identity if state["identity"].get(key) != identity[key]]
    if differing:
        raise TrainingError(
            f"The checkpoint {folder} does not fit: " + "; ".join(
                f"{key} was {state['identity'].get(key)!r} and is {identity[key]!r}" for key in differing
            ),
            remedy="Use the same data and settings, or start anew with --fresh.",
        )
    model.load_state_dict(weights, strict=True)
    restored: dict[int, dict[str, Any]] = {}
    for key, value in (*tensors.items(), *((k, torch.tensor(v)) for k, v in state["numbers"].items())):
        index, name = key.split(".", 1)
        restored.setdefault(int(index), {})[name] = value
    full = optimiser.state_dict()
    full["state"] = restored
    optimiser.load_state_dict(full)
    return int(state["step"])


def save_final(run: Path, model: EncoderModel, base: dict[str, torch.Tensor], *, share: float, about: dict[str, Any]) -> Path:
    """Store the trained encoder, its weights interpolated with the base's, and return its folder.

    `share` is the part of the trained weights: base + share · (trained − base).

    Source: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, eq. 1.
    """
    trained = _weights(model)
    mixed = {name: torch.lerp(base[name], trained[name], share) if trained[name].is_floating_point() else trained[name]
             for name in trained}  # fmt: skip
    out = run / FINAL
    with _complete_folder(out) as folder:
        towers = []
        for n, tower in enumerate(model.spec.towers):
            place = folder / "towers" / tower.name
            place.mkdir(parents=True)
            source = locate(tower)
            shutil.copyfile(source / "config.json", place / "config.json")
            shutil.copyfile(source / "tokenizer.json", place / "tokenizer.json")
            prefix = f"towers.{n}.transformer."
            own = {name.removeprefix(prefix): value for name, value in mixed.items() if name.startswith(prefix)}
            save_file(own, place / "model.safetensors", metadata={"format": "pt"})
            towers.append(replace(tower, weights=f"folder:{out / 'towers' / tower.name}"))
        spec = EncoderSpec(f"{model.spec.name.removesuffix('-tuned')}-tuned", tuple(towers))
        _write_json(folder / SPEC, spec.to_json())
        _write_json(folder / "training.json", about)
    return out


def checkpoint_spec(folder: Path) -> EncoderSpec:
    """Return the encoder of a finished run's folder, wherever the folder now is."""
    spec = EncoderSpec.from_json(json.loads((folder / SPEC).read_text(encoding="utf-8")))
    towers = tuple(replace(t, weights=f"folder:{(folder / 'towers' / t.name).absolute()}") for t in spec.towers)
    return replace(spec, towers=towers)


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
        for file in partial.rglob("*"):
            if file.is_file():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
        partial.chmod(0o755)
        if place.exists():
            shutil.rmtree(place)
        partial.rename(place)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True, default=str), encoding="utf-8")
