"""Autograd against central finite differences: on the real model and loss in float64, on triplets of the database.

Reads the triplet view; writes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
import torch
from torch import Tensor, nn

from pgembed.encoders.weights import make_ready
from pgembed.errors import TrainingError
from pgembed.progress import SILENT, Progress
from pgembed.training.data import Triplet, batches, settled, snapshot, summarise
from pgembed.training.determinism import deterministic
from pgembed.training.encode import TextEncoder
from pgembed.training.export import resolve_spec
from pgembed.training.gradient import accumulate_gradients, batch_loss
from pgembed.training.loop import check, prepare_model
from pgembed.training.mixture import trainable
from pgembed.training.model import EncoderModel
from pgembed.training.options import TrainingOptions

TOLERANCE = 1e-4
_TRIPLETS = 4  # every evaluation of the loss costs all of them, and there are two for each parameter that is looked at
_PARAMETERS = 24
_LEAST = 1e-5  # of the largest entry of any gradient: below, a difference of two losses is mostly rounding
_TRIES = 20
# The loss is good to about 1e-15 and a central difference's own error is of order step²: the best step is near the cube
# root of that. A second one decides where the first met a kink (the hinge, another hardest negative).
_STEPS = (1e-5, 1e-6)


@dataclass(frozen=True)
class Compared:
    """One derivative, both ways."""

    parameter: str
    index: int | None
    """Place in the flattened parameter; None: along a random direction through all parameters."""
    autograd: float
    numeric: float
    relative_error: float


@dataclass(frozen=True)
class GradientReport:
    """What the comparison came to."""

    loss: float
    ordinals: list[int]
    """Of the triplets."""
    compared: list[Compared]
    tolerance: float = TOLERANCE

    @property
    def largest(self) -> Compared:
        """The derivative with the largest relative error."""
        return max(self.compared, key=lambda one: one.relative_error)

    @property
    def passed(self) -> bool:
        """Whether even that is small enough."""
        return self.largest.relative_error < self.tolerance


def check_gradients(
    conn: psycopg.Connection, options: TrainingOptions, *, base: str | Path = "minilm", progress: Progress = SILENT
) -> GradientReport:
    """Compare the gradients that these options would train with on the first triplets that have a loss.

    Raises:
        TrainingError: there are no triplets, or none of the first ones has a loss.
        EncoderError: the base cannot be loaded.
    """
    spec = resolve_spec(base)
    check(options, spec)
    folders = make_ready(spec, progress)
    with snapshot(conn) as reader, deterministic():
        options = settled(reader, options)
        data = summarise(reader, options)
        model = prepare_model(spec, folders, options).double()
        encode = TextEncoder(spec, max_tokens=options.max_tokens)
        stream = batches(reader, options, data, first_step=0)
        for _ in range(_TRIES):
            batch = next(stream)[:_TRIPLETS]
            with torch.no_grad():
                if float(batch_loss(model, encode, batch, options)) > 0:
                    break
        else:
            raise TrainingError(
                f"The loss of the first {_TRIES} batches is zero: there is no gradient to check.",
                remedy="Widen the margin: --margin 0.5.",
            )
        return compare_gradients(model, encode, batch, options, progress)


def compare_gradients(
    model: EncoderModel,
    encode: TextEncoder,
    batch: list[Triplet],
    options: TrainingOptions,
    progress: Progress = SILENT,
    *,
    entries: int = _PARAMETERS,
) -> GradientReport:
    """Compare on one batch: the largest entry of evenly chosen parameters, and a direction through all of them.

    The gradient is the one that training uses, in parts if `micro_batch` says so. A parameter whose gradient is zero
    but for rounding (a key's bias: softmax does not heed it) is looked at by the direction alone.
    """
    parameters = trainable(model)
    model.zero_grad(set_to_none=True)
    value = accumulate_gradients(model, encode, batch, options)
    gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in parameters.items()}

    def loss() -> float:
        with torch.no_grad():
            return float(batch_loss(model, encode, batch, options))

    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    names = [name for name, gradient in gradients.items() if float(gradient.abs().max()) > _LEAST * largest]
    chosen = names if len(names) <= entries else [names[n * len(names) // entries] for n in range(entries)]
    compared = []
    with progress.task("comparing gradients", len(chosen) + 1, "derivatives") as task:
        for name in chosen:
            flat, gradient = parameters[name].data.view(-1), gradients[name].view(-1)
            index = int(gradient.abs().argmax())
            compared.append(_compare_entry(loss, name, flat, index, float(gradient[index])))
            task.advance()
        compared.append(_compare_direction(loss, list(parameters.values()), list(gradients.values())))
        task.advance()
    return GradientReport(value.loss, [row.ordinal for row in batch], compared)


def _compare_entry(loss: Callable[[], float], name: str, flat: Tensor, index: int, exact: float) -> Compared:
    kept = flat[index].clone()

    def move(by: float) -> None:
        flat[index] = kept + by

    return _closest(loss, move, name, index, exact)


def _compare_direction(loss: Callable[[], float], parameters: list[nn.Parameter], gradients: list[Tensor]) -> Compared:
    """Compare along one direction: every entry of every gradient has a part in it."""
    generator = torch.Generator().manual_seed(0)
    directions = []
    for p, g in zip(parameters, gradients, strict=True):
        # each parameter moves by a like share of its own size, so that none drowns the others
        d = torch.randn(p.shape, generator=generator, dtype=p.dtype) * p.data.square().mean().sqrt().clamp(min=1e-3)
        # Along the gradient's signs: the parts add up, and a wrong one cannot hide behind the noise of the others.
        # At random where it is zero, for that may be wrong as well.
        directions.append(torch.where(g == 0, d, d.abs() * g.sign()))
    length = sum(float(d.square().sum()) for d in directions) ** 0.5
    kept = [p.data.clone() for p in parameters]
    exact = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True)) / length

    def move(by: float) -> None:
        for p, start, d in zip(parameters, kept, directions, strict=True):
            p.data.copy_(start + by / length * d)

    return _closest(loss, move, "all", None, exact)


def _closest(
    loss: Callable[[], float], move: Callable[[float], None], name: str, index: int | None, exact: float
) -> Compared:
    found = []
    for step in _STEPS:
        ends = []
        for sign in (1, -1):
            move(sign * step)
            ends.append(loss())
        move(0.0)
        numeric = (ends[0] - ends[1]) / (2 * step)
        error = abs(numeric - exact) / max(abs(numeric), abs(exact), 1e-12)
        found.append(Compared(name, index, exact, numeric, error))
        if error < TOLERANCE / 10:
            break
    return min(found, key=lambda one: one.relative_error)
