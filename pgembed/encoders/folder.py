"""A model folder as an encoder: sentence-transformers' layout, or a checkpoint of our own."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from pgembed.encoders.spec import DIMENSIONS, EncoderSpec, Pooling, TowerSpec
from pgembed.errors import EncoderError

SPEC = "pgembed.json"
"""What `training.checkpoint` writes beside finished weights: the spec itself, so that nothing has to be inferred."""

# sentence-transformers up to 5 wrote a flag for each mode, since 6 the name of the mode.
_MODES: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
    "mean": "mean",
    "cls": "cls",
    "lasttoken": "last",
}


def folder_spec(folder: Path, *, name: str | None = None) -> EncoderSpec:
    """Describe a local folder; its modules, pooling, prompts and limits are honoured.

    Raises:
        EncoderError: it is not such a folder, or has parts that are not implemented here.
    """
    folder = folder.expanduser().absolute()
    spec = _own_spec(folder) if (folder / SPEC).exists() else _sentence_transformers_spec(folder)
    return spec if name is None else replace(spec, name=name)


def _own_spec(folder: Path) -> EncoderSpec:
    spec = EncoderSpec.from_json(_read_json(folder / SPEC))
    towers = tuple(
        replace(tower, weights=f"folder:{folder / tower.weights.removeprefix('folder:')}") for tower in spec.towers
    )
    return replace(spec, towers=towers)


def _sentence_transformers_spec(folder: Path) -> EncoderSpec:
    modules = _read_json(folder / "modules.json")
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise EncoderError(
            f"{folder} chains the modules {' → '.join(kinds)}; implemented are Transformer → Pooling (→ Normalize).",
        )
    transformer = folder / modules[0]["path"]
    config = _read_json(transformer / "config.json")
    settings = _read_json(transformer / "sentence_bert_config.json", missing={})
    if settings.get("do_lower_case"):
        raise EncoderError(f"{folder} lower-cases texts before the tokenizer, which is not implemented.")
    query_prompt, passage_prompt = _prompts(folder)
    pooling = _read_json(folder / modules[1]["path"] / "config.json")
    if pooling.get("include_prompt") is False and (query_prompt or passage_prompt):
        raise EncoderError(f"{folder} leaves its prompts out of the pooling, which is not implemented.")
    tower = TowerSpec(
        name=folder.name,
        weights=f"folder:{transformer}",
        dimensions=int(config["hidden_size"]),
        slot=DIMENSIONS,
        pooling=_pooling(folder, pooling),
        causal=bool(config.get("is_causal", config.get("is_decoder", False))),
        max_tokens=_max_tokens(transformer, config, settings),
        query_prompt=query_prompt,
        passage_prompt=passage_prompt,
    )
    return EncoderSpec(folder.name, (tower,))


def _pooling(folder: Path, pooling: dict[str, Any]) -> Pooling:
    named = pooling.get("pooling_mode")
    wanted = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value is True]
    if named is not None:
        wanted = [named] if isinstance(named, str) else list(named)
    if len(wanted) != 1 or wanted[0] not in _MODES:
        raise EncoderError(
            f"{folder} pools by {' and '.join(wanted) or 'nothing'}; implemented is one of mean, cls and lasttoken."
        )
    return _MODES[wanted[0]]


def _prompts(folder: Path) -> tuple[str, str]:
    """Return the prompts before a query and before a passage."""
    settings = _read_json(folder / "config_sentence_transformers.json", missing={})
    prompts = settings.get("prompts") or {}
    default = prompts.get(settings.get("default_prompt_name"), "")
    query = prompts.get("query", default)
    passage = prompts.get("passage") or prompts.get("document") or default
    return str(query), str(passage)


def _max_tokens(folder: Path, config: dict[str, Any], settings: dict[str, Any]) -> int:
    """Return the least of the limits that are given, as sentence-transformers does."""
    if settings.get("max_seq_length"):
        return int(settings["max_seq_length"])
    tokenizer = _read_json(folder / "tokenizer_config.json", missing={})
    limits = [config.get("max_position_embeddings"), tokenizer.get("model_max_length")]
    given = [int(limit) for limit in limits if limit]
    if not given:
        raise EncoderError(f"{folder} does not say how many tokens it takes (max_seq_length, model_max_length).")
    return min(given)


def _read_json(path: Path, *, missing: Any = None) -> Any:
    if missing is not None and not path.exists():
        return missing
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path} cannot be read: {error}") from error
