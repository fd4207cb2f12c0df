"""A tower's transformer from its files: transformers' own classes, safetensors, and no code from a model repository."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from pgembed.encoders.folder import read_json
from pgembed.encoders.jina_v3 import MATRYOSHKA, is_jina_v3
from pgembed.encoders.spec import ROLES, TowerSpec
from pgembed.errors import EncoderError
from pgembed.training.adapters import AdaptedTransformer
from pgembed.training.jina_v3 import load_jina_v3

Attention = Literal["eager", "sdpa"]
"""How attention is computed. eager: step by step, as the exporter can follow it. sdpa: torch's fused kernel, which
keeps no (T, T) matrix for the way back; equal but for rounding. Which is faster: see `fastest_attention`."""


def load_transformer(tower: TowerSpec, folder: Path, attention: Attention = "eager") -> nn.Module:
    """Return the transformer in float32 and evaluation mode, attending as the tower says.

    Raises:
        EncoderError: the files do not hold the model that the tower describes.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = read_json(folder / "config.json")
    if is_jina_v3(config):
        transformer = load_jina_v3(tower, folder, attention).eval()
    elif any(tower.adapter(role) for role in ROLES):
        raise EncoderError(f"Tower {tower.name!r}: task adapters are implemented for jina-embeddings-v3 alone.")
    else:
        transformer = _load_known(tower, folder, attention).eval()
    _check_width(tower, transformer, config)
    _check_attention(tower, transformer)
    return transformer


def _load_known(tower: TowerSpec, folder: Path, attention: Attention) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config.is_causal = tower.causal
        loaded: Any = AutoModel.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            attn_implementation=attention,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # whatever the libraries make of a stranger's files
        raise EncoderError(
            f"Tower {tower.name!r}: the model in {folder} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    transformer, report = loaded
    # a pooler head is not used, and a random one is not kept; anything else that is missing would be random weights
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing or report["mismatched_keys"]:
        raise EncoderError(
            f"Tower {tower.name!r}: the weights in {folder} lack {', '.join(missing[:5]) or 'nothing'} "
            f"and misfit at {', '.join(map(str, list(report['mismatched_keys'])[:5])) or 'nothing'}.",
        )
    if any(name.startswith("pooler.") for name in report["missing_keys"]):
        transformer.pooler = None
    model: nn.Module = transformer
    return model


def _check_width(tower: TowerSpec, transformer: nn.Module, config: dict[str, Any]) -> None:
    width = int(transformer.config.hidden_size)
    known = MATRYOSHKA if is_jina_v3(config) else ()
    allowed = [*(tower.matryoshka_dimensions or config.get("matryoshka_dimensions") or known), width]
    if tower.dimensions not in [size for size in allowed if size <= width]:
        raise EncoderError(
            f"Tower {tower.name!r} has {width} dimensions, not {tower.dimensions} as said.",
            remedy=f"It can be cut to {', '.join(map(str, sorted(set(allowed))))} dimensions."
            if len(set(allowed)) > 1
            else "It was not trained to be cut (Matryoshka), so far as its configuration says.",
        )


def _check_attention(tower: TowerSpec, transformer: nn.Module) -> None:
    """See whether a later token changes what an earlier one becomes, and hold that against what is said.

    A wrong mask gives plausible vectors, and which setting an architecture heeds is its own affair: so it is tried.
    """
    size = int(transformer.config.vocab_size)
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]]) % size
    rows = {"adapter_rows": torch.zeros(2, dtype=torch.long)} if isinstance(transformer, AdaptedTransformer) else {}
    with torch.inference_mode():
        hidden = transformer(input_ids=ids, attention_mask=torch.ones_like(ids), **rows).last_hidden_state
    looks_ahead = not torch.equal(hidden[0, 0], hidden[1, 0])
    if looks_ahead == tower.causal:
        raise EncoderError(
            f"Tower {tower.name!r} is said to attend {'causally' if tower.causal else 'both ways'}, and the model "
            f"({transformer.config.model_type}) does not: transformers has no such variant of it."
        )
