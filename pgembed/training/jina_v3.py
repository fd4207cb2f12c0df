"""jina-embeddings-v3 from any of its files, as transformers' own model with the adapters of both roles.

Three sets of names are read, with or without `roberta.` before them:

flash    layers under encoder.layers, one Wqkv matrix; where a layer is adapted, X.parametrizations.weight.original,
         …weight.0.lora_A and …weight.0.lora_B for all tasks at once: linear (N, r, I) and (N, O, r), embedding
         (N, V, r) and (N, r, O)
native   JinaEmbeddingsV3Model's own; adapters in folders, X.lora_A.weight (r, I), X.lora_B.weight (O, r),
         X.lora_embedding_A (r, V), X.lora_embedding_B (O, r)
ours     native, X.adapter_a and X.adapter_b for both roles, as a checkpoint stores them

Sources: modeling_lora.py and mha.py of jinaai/xlm-roberta-flash-implementation (names, shapes, scale α/r, Wqkv's rows
are q, k, v); transformers' conversion_mapping.py, "jina_embeddings_v3" (the same in native names); PEFT's LoRA layers.
"""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from pgembed.encoders.folder import read_json
from pgembed.encoders.jina_v3 import TASKS, is_flash
from pgembed.encoders.spec import ROLES, TowerSpec
from pgembed.encoders.weights import adapter_folder, weight_files
from pgembed.errors import EncoderError
from pgembed.training.adapters import A, AdaptedTransformer, Adapter, B

_NAMES = (
    (r"^base_model\.model\.", ""),
    (r"^roberta\.", ""),
    (r"^emb_ln\.", "embeddings.LayerNorm."),
    (r"^encoder\.layers\.", "layers."),
    (r"\.mixer\.out_proj\b", ".self_attn.o_proj"),
    (r"\.norm1\.", ".post_attention_layernorm."),
    (r"\.norm2\.", ".post_mlp_layernorm."),
    (r"\.parametrizations\.weight\.original$", ".weight"),
    (r"\.parametrizations\.weight\.0\.", "."),
)
_QKV = tuple(f".self_attn.{part}_proj" for part in "qkv")
# heads that embedding has no use for, and buffers of older versions
_UNUSED = re.compile(r"^(pooler|lm_head|classifier)\.|position_ids$|inv_freq$")

# Configuration that both layouts call the same.
_SHARED = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings", "type_vocab_size",
    "initializer_range", "layer_norm_eps", "pad_token_id", "bos_token_id", "eos_token_id",
)  # fmt: skip


def load_jina_v3(tower: TowerSpec, folder: Path, attention: str = "eager") -> nn.Module:
    """Return the model in float32; with adapters where the tower names any.

    Raises:
        EncoderError: the files lack a weight or an adapter, have one that is not known, or are of another kind.
    """
    from transformers import JinaEmbeddingsV3Model

    config = _config(tower, folder)
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        tensors.update(_native_names(_read(path)))
    adapters = _adapters(tower, folder, tensors)
    config._attn_implementation = attention
    with torch.device("meta"):
        model = JinaEmbeddingsV3Model(config, add_pooling_layer=False)
    wanted = set(model.state_dict())
    if missing := sorted(wanted - set(tensors)):
        raise _misfit(tower, folder, "lack", missing)
    if unknown := sorted({*tensors, *(f"{layer}.weight" for layer in adapters)} - wanted):
        raise _misfit(tower, folder, "have, beyond what jina-embeddings-v3 is,", unknown)
    model.to_empty(device="cpu")
    _fill_buffers(model, JinaEmbeddingsV3Model, config)
    try:
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    except RuntimeError as error:
        raise EncoderError(f"Tower {tower.name!r}: the weights in {folder} misfit config.json: {error}") from error
    return AdaptedTransformer(model, adapters) if adapters else model


def _fill_buffers(model: nn.Module, kind: Callable[..., nn.Module], config: Any) -> None:
    """Give `model` the buffers that no file holds, from a model of no layers and no words."""
    small = copy.deepcopy(config)
    small.num_hidden_layers, small.vocab_size = 0, max(2, (config.pad_token_id or 0) + 1)
    for name, buffer in kind(small, add_pooling_layer=False).named_buffers():
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, buffer)


def _config(tower: TowerSpec, folder: Path) -> Any:
    from transformers import JinaEmbeddingsV3Config

    values = read_json(folder / "config.json")
    given = {name: values[name] for name in _SHARED if name in values}
    if not is_flash(values):
        return JinaEmbeddingsV3Config(**given, rope_parameters=values.get("rope_parameters"))
    position = values.get("position_embedding_type")
    if position != "rotary" or not values.get("rotary_emb_base"):
        raise EncoderError(
            f"Tower {tower.name!r}: {folder}/config.json has {position!r} positions; jina-embeddings-v3 has "
            "rotary ones, with their base in rotary_emb_base."
        )
    rope = {"rope_type": "default", "rope_theta": float(values["rotary_emb_base"])}
    return JinaEmbeddingsV3Config(**given, rope_parameters=rope)


def _adapters(tower: TowerSpec, folder: Path, tensors: dict[str, Tensor]) -> dict[str, Adapter]:
    """Take the adapters out of `tensors`, or read them from their folders; by layer, for both roles."""
    taken = {name: tensors.pop(name) for name in list(tensors) if re.search(r"\.(lora_[AB]|adapter_[ab])$", name)}
    if not any(tower.adapter(role) for role in ROLES):
        return {}
    if any(name.endswith(f".{A}") for name in taken):
        layers = [name.removesuffix(f".{A}") for name in taken if name.endswith(f".{A}")]
        return {layer: Adapter(taken[f"{layer}.{A}"].float(), taken[f"{layer}.{B}"].float()) for layer in layers}
    by_role = [_one_role(tower.adapter(role), tower, folder, taken) if tower.adapter(role) else {} for role in ROLES]
    layers = sorted({*by_role[0], *by_role[1]})
    found = {}
    for layer in layers:
        known = next(adapters[layer] for adapters in by_role if layer in adapters)
        # a role that leaves this layer alone adds nothing
        pairs = [adapters.get(layer, (torch.zeros_like(known[0]), torch.zeros_like(known[1]))) for adapters in by_role]
        if len({(a.shape, b.shape) for a, b in pairs}) > 1:
            raise EncoderError(f"Tower {tower.name!r}: the adapters of the two roles differ in rank at {layer}.")
        found[layer] = Adapter(torch.stack([a for a, _ in pairs]), torch.stack([b for _, b in pairs]))
    if not found:
        raise EncoderError(f"Tower {tower.name!r}: {folder} holds no adapters.")
    return found


def _one_role(task: str, tower: TowerSpec, folder: Path, taken: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return one task's `(a, b)` by layer, `b` scaled by α/r."""
    if taken:
        values = read_json(folder / "config.json")
        tasks = list(values.get("lora_adaptations") or TASKS)
        if task not in tasks:
            raise EncoderError(
                f"Tower {tower.name!r}: {folder} has the task adapters {', '.join(tasks)}, not {task!r}."
            )
        scale, number = float(values["lora_alpha"]) / int(values["lora_rank"]), tasks.index(task)
        layers = [name.removesuffix(".lora_A") for name in taken if name.endswith(".lora_A")]
        return {
            layer: (taken[f"{layer}.lora_A"][number].float(), taken[f"{layer}.lora_B"][number].float() * scale)
            for layer in layers
        }
    place = adapter_folder(folder, task)
    if place is None:
        raise EncoderError(
            f"Tower {tower.name!r}: {folder} has no task adapter {task!r}: neither among its weights nor as a folder "
            f"{task.replace('.', '_')}/ with adapter_model.safetensors.",
            remedy="Fetch that folder too, or describe the tower without adapters.",
        )
    return _peft(tower, place)


def _peft(tower: TowerSpec, place: Path) -> dict[str, tuple[Tensor, Tensor]]:
    values = read_json(place / "adapter_config.json")
    strange = [
        name
        for name in ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out")
        if values.get(name)
    ]
    if values.get("peft_type") != "LORA" or strange or values.get("bias", "none") != "none":
        raise EncoderError(
            f"Tower {tower.name!r}: {place} is not plain LoRA ({', '.join(strange) or values.get('peft_type')}), which "
            "is all that is implemented."
        )
    scale = float(values["lora_alpha"]) / int(values["r"])
    tensors = _native_names(_read(place / "adapter_model.safetensors"))
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.endswith(".lora_A.weight"):
            layer = name.removesuffix(".lora_A.weight")
            found[layer] = (tensor.float(), tensors[f"{layer}.lora_B.weight"].float() * scale)
        elif name.endswith(".lora_embedding_A"):
            layer = name.removesuffix(".lora_embedding_A")
            found[layer] = (tensor.float().T, tensors[f"{layer}.lora_embedding_B"].float().T * scale)
        elif not name.endswith((".lora_B.weight", ".lora_embedding_B")):
            raise EncoderError(f"Tower {tower.name!r}: {place} has {name}, which is no part of LoRA.")
    return found


def _native_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under JinaEmbeddingsV3Model's names; Wqkv in its three parts."""
    found: dict[str, Tensor] = {}
    for old, tensor in tensors.items():
        name = old
        for pattern, new in _NAMES:
            name = re.sub(pattern, new, name)
        if _UNUSED.search(name):
            continue
        if ".mixer.Wqkv" not in name:
            found[name] = tensor
        elif ".lora_A" in name:  # what goes into all three parts
            found.update({name.replace(".mixer.Wqkv", part): tensor for part in _QKV})
        else:
            # outputs are the first dimension, but behind the tasks in lora_B (N, 3·O, r)
            parts = tensor.chunk(3, dim=tensor.dim() - 2 if tensor.dim() == 3 else 0)
            for part, own in zip(_QKV, parts, strict=True):
                found[name.replace(".mixer.Wqkv", part)] = own.clone()  # no views: each can be freed, and saved
    return found


def _read(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            # `inner.` stands before the names of a checkpoint of our own, where the adapted model is wrapped
            return {name.removeprefix("inner."): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # the library's own error class has no stable place
        raise EncoderError(f"{path} is not a file of safetensors: {error}") from error


def _misfit(tower: TowerSpec, folder: Path, what: str, names: list[str]) -> EncoderError:
    return EncoderError(f"Tower {tower.name!r}: the weights in {folder} {what} {', '.join(names[:5])}.")
