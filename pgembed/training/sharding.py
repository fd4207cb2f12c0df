"""Weights divided among the processes, for a model that does not fit where each of them computes (FSDP2).

Each process holds a part of every weight, of its gradient and of its moments; a layer's weights are put together when
the layer is at work, and taken apart again.

Source: Zhao et al., "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel", VLDB 2023.
"""

from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from pgembed.training.distributed import Processes
from pgembed.training.model import EncoderModel


def shard(model: EncoderModel, among: Processes) -> None:
    """Divide every layer's weights, and what is left beside the layers, among the processes."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    mesh = init_device_mesh(among.device.type, (among.size,))
    parts = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]
    for part in [*parts, model]:
        # the outermost too: a validation goes no way back, and would leave it put together
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
        # every process has the gradient of the whole loss by its own vectors: they are added, not averaged
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)  # gloo has no sum with a factor


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor put together from all processes' parts, if it is divided. All must ask at the same time."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_part(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor; a view."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def divided_like(value: Tensor, pattern: Tensor) -> Tensor:
    """Return `value`, which every process has, divided as `pattern` is."""
    if not isinstance(pattern, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value.to(pattern.device), pattern.device_mesh, pattern.placements)
