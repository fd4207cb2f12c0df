"""Checkpoints: folders that are complete or not there, in safetensors and JSON. Nothing is pickled.

step-000050/    what a resume needs: state.json, and in safetensors weights, optimiser and random states
best-000040/    the weights of the best validation so far, where they are to be kept
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

from pgembed.encoders.folder import SPEC
from pgembed.encoders.weights import locate
from pgembed.errors import TrainingError
from pgembed.training.distributed import ALONE, Processes
from pgembed.training.mixture import set_weights, whole_weights
from pgembed.training.model import EncoderModel
from pgembed.training.sharding import divided_like, whole

FINAL = "final"

# What stands beside a model's weights in sentence-transformers' layout, so that a trained tower loads there too.
_COMPANIONS = ("*.json", "vocab.txt", "*/config.json")


@dataclass(frozen=True)
class State:
    """How far a run has come."""

    step: int = 0
    """Steps that are done."""
    skipped: int = 0
    """Those of them that changed nothing, because the loss or a gradient was not finite."""
    best_step: int | None = None
    """The step of the best validation so far."""
    best_rank: tuple[float, float] | None = None
    """What it was compared by."""
    stale: int = 0
    """Validations since then."""


@dataclass(frozen=True)
class Setting:
    """What a run must have in common with the one that goes on from its checkpoint, and what is noted beside."""

    identity: dict[str, Any]
    """Options, and fingerprints of data and base."""
    code: dict[str, str | None]
    """Versions, and the git revision."""
    position: dict[str, Any]
    """Of sampler and schedule after a checkpoint's step: a function of the step, stored to be held against it."""

    def parts(self) -> dict[str, Any]:
        """Return all of it by name, as JSON would give it back."""
        named = {**self.identity, **self.code, **self.position}
        parts: dict[str, Any] = json.loads(json.dumps(named, sort_keys=True))
        return parts


def save_step(
    run: Path,
    state: State,
    model: EncoderModel,
    optimiser: torch.optim.Optimizer,
    setting: Setting,
    *,
    keep: int = 2,
    among: Processes = ALONE,
) -> None:
    """Store everything that later steps depend on; of the older checkpoints the last `keep` − 1 stay.

    The first process writes; the others take part where each has a part of the weights alone.
    """
    weights = whole_weights(model)
    tensors, numbers = {}, {}
    for index, values in optimiser.state_dict()["state"].items():
        for name, value in values.items():
            if torch.is_tensor(value) and value.dim():
                tensors[f"{index}.{name}"] = whole(value).contiguous()
            else:
                numbers[f"{index}.{name}"] = float(value)
    if not among.is_first:
        return
    with _complete_folder(run / f"step-{state.step:06d}") as folder:
        save_file(weights, folder / "weights.safetensors")
        save_file(tensors, folder / "optimiser.safetensors")
        save_file(_random_states(), folder / "random.safetensors")
        stored = {
            "state": vars(state),
            "setting": setting.parts(),
            "numbers": numbers,
            "machine": _machine(among),
        }
        _write_json(folder / "state.json", stored)
    for old in _steps(run)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    for old in run.glob("best-??????"):
        if old != _best(run, state):
            shutil.rmtree(old, ignore_errors=True)


def newest_step(run: Path) -> int:
    """Return the step of the newest checkpoint; 0 where there is none."""
    found = _steps(run)
    return int(found[-1].name.removeprefix("step-")) if found else 0


def load_step(
    run: Path, model: EncoderModel, optimiser: torch.optim.Optimizer, setting: Setting, among: Processes = ALONE
) -> tuple[State, str]:
    """Load the newest checkpoint of `run` into model and optimiser; where there is none, leave them as they are.

    Return its state, and what a person should know of it (empty: nothing). It fits any number of processes, threads and
    any device: they decide the order of sums alone.

    Raises:
        TrainingError: the checkpoint belongs to other options, weights, data or code (each part that differs is named),
            or cannot be read.
    """
    found = _steps(run)
    if not found:
        return State(), ""
    folder = found[-1]
    try:
        stored = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        weights, tensors, random = (
            load_file(folder / f"{name}.safetensors") for name in ("weights", "optimiser", "random")
        )
        rank = stored["state"].pop("best_rank")
        state = State(**stored["state"], best_rank=None if rank is None else (rank[0], rank[1]))
        before, numbers, machine = dict(stored["setting"]), dict(stored["numbers"]), dict(stored["machine"])
    except Exception as error:
        raise TrainingError(
            f"The checkpoint {folder} cannot be read: {error}",
            remedy="Remove that folder: the run goes on from an older one.",
        ) from error
    now = setting.parts()
    differing = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if differing:
        raise TrainingError(
            f"The checkpoint {folder} does not fit: "
            + "; ".join(f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in differing)
            + ".",
            remedy="Use the same data, options and versions, or start anew with --fresh.",
        )
    set_weights(model, weights)
    owned = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    restored: dict[int, dict[str, Any]] = {}
    for key, value in (*tensors.items(), *((k, torch.tensor(v)) for k, v in numbers.items())):
        index, name = key.split(".", 1)
        restored.setdefault(int(index), {})[name] = divided_like(value, owned[int(index)]) if value.dim() else value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": restored})
    _set_random_states(random)
    changed = [f"{value} {name}" for name, value in machine.items() if value != _machine(among)[name]]
    if not changed:
        return state, ""
    now_on = ", ".join(f"{value} {name}" for name, value in _machine(among).items() if value != machine[name])
    return state, f"It ran with {', '.join(changed)} and goes on with {now_on}: last digits may differ."


def save_best(run: Path, model: EncoderModel, step: int, *, among: Processes = ALONE) -> None:
    """Store the trained weights as those of the best validation; older ones go with the next checkpoint."""
    weights = whole_weights(model)
    if not among.is_first:
        return
    with _complete_folder(run / f"best-{step:06d}") as folder:
        save_file(weights, folder / "weights.safetensors")


def load_best(run: Path, model: EncoderModel, state: State) -> None:
    """Load the weights of the best validation."""
    best = _best(run, state)
    assert best is not None  # noqa: S101 - called where there is one
    set_weights(model, load_file(best / "weights.safetensors"))


def remove_leftovers(run: Path) -> None:
    """Remove what a killed process had begun to write. Only for whom the run is locked."""
    for partial in run.glob(".*-*"):
        shutil.rmtree(partial, ignore_errors=True)


def remove_steps(run: Path) -> None:
    """Remove the checkpoints of a finished run: nothing goes on from them, and each holds the weights three times."""
    for folder in (*_steps(run), *run.glob("best-??????")):
        shutil.rmtree(folder, ignore_errors=True)


def save_final(run: Path, model: EncoderModel, about: dict[str, Any]) -> Path:
    """Store the encoder as its weights are now, and return its folder."""
    weights = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    with _complete_folder(run / FINAL) as folder:
        towers = []
        for n, tower in enumerate(model.spec.towers):
            place = folder / "towers" / tower.name
            _copy_companions(locate(tower), place)
            prefix = f"towers.{n}.transformer."
            own = {
                # where it has task adapters, the transformer stands in a shell
                name.removeprefix(prefix).removeprefix("inner."): value
                for name, value in weights.items()
                if name.startswith(prefix)
            }
            save_file(own, place / "model.safetensors", metadata={"format": "pt"})
            # relative, so that the folder can be moved; the base's files had other hashes
            towers.append(replace(tower, weights=f"folder:towers/{tower.name}", sha256={}))
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


def _machine(among: Processes) -> dict[str, Any]:
    return {"threads": torch.get_num_threads(), "processes": among.size, "device": among.device.type}


def _random_states() -> dict[str, torch.Tensor]:
    """Return the states of torch's generators. Nothing of ours draws from them while dropout is off."""
    devices = {f"cuda.{n}": torch.cuda.get_rng_state(n) for n in range(torch.cuda.device_count())}
    return {"cpu": torch.get_rng_state(), **devices}


def _set_random_states(states: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    for n in range(torch.cuda.device_count()):
        if f"cuda.{n}" in states:
            torch.cuda.set_rng_state(states[f"cuda.{n}"], n)


def _steps(run: Path) -> list[Path]:
    return sorted(run.glob("step-??????"))


def _best(run: Path, state: State) -> Path | None:
    return None if state.best_step is None else run / f"best-{state.best_step:06d}"


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
