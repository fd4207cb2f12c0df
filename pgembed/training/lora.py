"""Low-rank adapters in place of full fine-tuning, for towers whose optimiser would not fit in memory.

W + (α / r) · B·A with W frozen; A (r, in) starts at random, B (out, r) at zero, α = 2 r. The result is plain weights:
the product is added to W before the checkpoint is written. A tower that brings task adapters of its own (jina-v3) has
those trained instead, at the rank that they have.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, section 4.1.
"""

from importlib.util import find_spec

import torch
from torch import nn

from pgembed.errors import MissingExtra
from pgembed.training.adapters import A, B


def require_lora() -> None:
    """Check that the library is installed.

    Raises:
        MissingExtra: it is not; the message has the line that installs it.
    """
    if find_spec("peft") is None:
        raise MissingExtra("lora", "--lora-rank", "there is no peft")


def add_adapters(model: nn.Module, rank: int, *, seed: int) -> None:
    """Freeze `model` and give every linear layer an adapter of this rank. The same seed gives the same start."""
    require_lora()
    from peft import LoraConfig, inject_adapter_in_model

    model.requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.rpartition(".")[2] in (A, B))
    if layers := _linear_layers(model):
        config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=layers)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            own = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
            inject_adapter_in_model(config, model)
        # peft freezes what is not its own
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad or name in own)


def merge_adapters(model: nn.Module) -> None:
    """Add every adapter's product to its layer's weights, and remove the adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, module in adapted:
        module.merge()
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, module.get_base_layer())


def is_down_projection(name: str) -> bool:
    """Tell whether a parameter is an adapter's A."""
    return ".lora_A." in name


def _linear_layers(model: nn.Module) -> list[str]:
    """Return the names of all linear layers but a pooler's, which no vector depends on."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and "pooler" not in name.split(".")
    ]
