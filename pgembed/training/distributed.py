"""Several processes that train one model: the same step as one process would take, its texts dealt out among them.

Every process knows the whole batch and encodes its share of the distinct texts. All vectors are gathered, and each
process computes the loss of the whole batch: hardest and in-batch negatives are looked for among all bodies. Going
back, each takes the gradient of its own vectors through its own graph. So the sum of the processes' gradients (not
their mean, as where each has a loss of its own) is the gradient that one process would have, but for the order of sums.

torch's DistributedDataParallel is for a loss of each process's own and one pass forward: here are several passes.

Shapes: N texts, n of one process, D dimensions.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pgembed.config import Launch, launch
from pgembed.errors import TrainingError

# A process that is gone is seen at once, by its closed connections; this is for one that hangs. The longest wait of a
# healthy run is for the first process to write a checkpoint.
TIMEOUT_S = 600.0

# Elements of gradients that are added up at a time: 64 MB of float32 beside the gradients themselves.
_AT_A_TIME = 1 << 24

_CPU = torch.device("cpu")

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes of a run, and what they do together. Of a single one, every method gives back what it was given."""

    rank: int = 0
    """Which of them this is. The first, 0, has the database, the disk and the terminal."""
    size: int = 1
    device: torch.device = _CPU
    """Where this process computes, and what it sends lies there."""
    shards: bool = False
    """Whether each holds a part of the weights alone, and all go through the model in step."""

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that reads and writes."""
        return self.rank == 0

    def deal(self, lengths: Sequence[int]) -> list[list[int]]:
        """Return for each process the places of its texts: like shares of long and of short ones, equally many.

        Where the number does not come out, the shortest text is some processes' as well, and its vector there unused.
        """
        if self.size == 1:
            return [list(range(len(lengths)))]
        order = sorted(range(len(lengths)), key=lambda n: (lengths[n], n))
        hands = [order[rank :: self.size] for rank in range(self.size)]
        return [hand + order[: len(hands[0]) - len(hand)] for hand in hands]

    def gather(self, own_nD: Tensor, hands: Sequence[Sequence[int]]) -> Tensor:
        """Return (N, D): the vectors of all processes, each in its text's place; gradients go back into `own_nD`.

        `hands` is what was dealt.
        """
        if self.size == 1:
            return own_nD
        sent_nD = own_nD.detach().contiguous()
        parts = [torch.empty_like(sent_nD) for _ in range(self.size)]
        with _answered():
            dist.all_gather(parts, sent_nD)
        parts[self.rank] = own_nD
        first: dict[int, int] = {}
        for at, place in enumerate(place for hand in hands for place in hand):
            first.setdefault(place, at)
        return torch.cat(parts)[[first[place] for place in range(len(first))]]

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Make every parameter's gradient the sum over all processes; a parameter that none has one of keeps none."""
        if self.size == 1 or self.shards:  # sharded gradients are added on the way back
            return
        with torch.no_grad(), _answered():
            has = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=self.device)
            dist.all_reduce(has)
            # Adam moves what has a gradient of zero and leaves what has none: so the two are kept apart
            for p, somewhere in zip(parameters, has.tolist(), strict=True):
                if somewhere and p.grad is None:
                    p.grad = torch.zeros_like(p)
            for gradients in _buckets([p.grad for p in parameters if p.grad is not None]):
                flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
                dist.all_reduce(flat)
                for gradient, total in zip(
                    gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True
                ):
                    gradient.copy_(total.view_as(gradient))

    def add(self, *values: float) -> list[float]:
        """Return each value's sum over all processes."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        with _answered():
            dist.all_reduce(total)
        return cast("list[float]", total.tolist())

    def broadcast(self, value: T | None) -> T:
        """Return what the first process gave; the others give None."""
        if self.size > 1:
            box = [value]
            with _answered():
                dist.broadcast_object_list(box, src=0, device=self.device)
            value = box[0]
        return cast("T", value)

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.add(0.0)


ALONE = Processes()


@contextmanager
def joined(device: str = "auto", *, shards: bool = False, timeout_s: float = TIMEOUT_S) -> Iterator[Processes]:
    """Join the processes that torchrun started with this one; without torchrun, be alone.

    Over NCCL where they compute on GPUs, each on its own, and over gloo elsewhere.

    Raises:
        TrainingError: the device is not here, or a process is not, or weights are to be sharded over a single one.
    """
    told = launch()
    place = choose_device(device, told)
    if told.size == 1:
        if shards:
            raise TrainingError(
                "--shard divides the weights among processes, and there is one.",
                remedy="Start several: torchrun --nproc-per-node 2 -m pgembed train --shard …",
            )
        yield Processes(device=place)
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    with _answered():
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=timedelta(seconds=timeout_s))
    yield Processes(told.rank, told.size, place, shards)
    # After an error the connections are left to the end of the process: the others must not wait for this one, and NCCL
    # would wait for them.
    dist.destroy_process_group()


def choose_device(wanted: str, told: Launch | None = None) -> torch.device:
    """Return where this process computes: `auto` is a GPU where torch sees one for it.

    Raises:
        TrainingError: a GPU is asked for, or needed for each process of a machine, and is not there.
    """
    local = 0 if told is None else told.local_rank
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cpu" or (wanted == "auto" and not count):
        return torch.device("cpu")
    if wanted not in ("auto", "cuda"):
        raise TrainingError(f"{wanted!r} is none of auto, cpu, cuda.")
    if local >= count:
        sees = "is built for CPUs alone" if _is_cpu_build() else f"sees {count or 'none'}"
        raise TrainingError(
            f"Process {local} of this machine has no GPU: torch {torch.__version__} {sees}.",
            remedy="Use --device cpu, start no more processes than there are GPUs, or install a torch that has CUDA.",
        )
    return torch.device("cuda", local)


def _is_cpu_build() -> bool:
    return torch.version.cuda is None


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the gradients in their order, some of one type at a time."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and (
            gradient.dtype != bucket[0].dtype or sum(g.numel() for g in bucket) + gradient.numel() > _AT_A_TIME
        ):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


@contextmanager
def _answered() -> Iterator[None]:
    """Turn what torch raises when a process is gone, or does not answer in time, into an error that says so."""
    try:
        yield
    except RuntimeError as error:  # torch's own are among them
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise TrainingError(
            f"Another process of this run ended, or does not answer: {lines[0]}",
            remedy="What it said itself tells why. The same command again goes on from the last checkpoint.",
        ) from error
