"""A model folder as an encoder: sentence-transformers' layout, jina-embeddings-v3, or a checkpoint of our own."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from pgembed.encoders.end_of_text import ends_with
from pgembed.encoders.jina_v3 import MATRYOSHKA, MAX_TOKENS, PROMPTS, TASKS, is_jina_v3
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

# Architectures that transformers runs causally where config.json says nothing.
_CAUSAL = ("qwen2", "qwen3", "llama", "mistral", "gemma", "gemma2", "phi3")


def folder_spec(folder: Path, *, name: str | None = None) -> EncoderSpec:
    """Describe a local folder; its modules, pooling, prompts and limits are honoured.

    Raises:
        EncoderError: it is not such a folder, or has parts that are not implemented here.
    """
    folder = folder.expanduser().absolute()
    try:
        spec = _described(folder)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        # the files are JSON, and hold a list for a dictionary, a text for a number, or less than they should
        raise EncoderError(
            f"The configuration in {folder} is not a model's: {type(error).__name__}: {error}",
            remedy="Fetch the folder anew, or compare its modules.json and config.json with the published ones.",
        ) from error
    return spec if name is None else replace(spec, name=name)


def _described(folder: Path) -> EncoderSpec:
    if (folder / SPEC).exists():
        return _own_spec(folder)
    if (folder / "modules.json").exists() or not is_jina_v3(read_json(folder / "config.json", missing={})):
        return _sentence_transformers_spec(folder)
    return EncoderSpec(folder.name, (_jina_tower(folder, folder, read_json(folder / "config.json")),))


def _own_spec(folder: Path) -> EncoderSpec:
    spec = EncoderSpec.from_json(read_json(folder / SPEC))
    towers = tuple(
        replace(tower, weights=f"folder:{folder / tower.weights.removeprefix('folder:')}") for tower in spec.towers
    )
    return replace(spec, towers=towers)


def _sentence_transformers_spec(folder: Path) -> EncoderSpec:
    modules = read_json(folder / "modules.json")
    types = [str(module.get("type", "")) for module in modules]
    kinds = [kind.rpartition(".")[2] for kind in types]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise EncoderError(
            f"{folder} chains the modules {' → '.join(kinds)}; implemented are Transformer → Pooling (→ Normalize).",
        )
    transformer = folder / modules[0]["path"]
    config = read_json(transformer / "config.json")
    # a repository's own module is code that would have to be run; what jina-embeddings-v3's does is known
    foreign = [kind for kind in types if not kind.startswith("sentence_transformers.")]
    if foreign and not (is_jina_v3(config) and foreign == ["custom_st.Transformer"]):
        raise EncoderError(f"{folder} needs code of its own: {', '.join(foreign)}, which is never run.")
    pooled = read_json(folder / modules[1]["path"] / "config.json")
    tower = (_jina_tower if is_jina_v3(config) else _plain_tower)(folder, transformer, config)
    if pooled.get("include_prompt") is False and (tower.query_prompt or tower.passage_prompt):
        raise EncoderError(f"{folder} leaves its prompts out of the pooling, which is not implemented.")
    return EncoderSpec(folder.name, (replace(tower, pooling=_pooling(folder, pooled)),))


def _plain_tower(folder: Path, transformer: Path, config: dict[str, Any]) -> TowerSpec:
    settings = read_json(transformer / "sentence_bert_config.json", missing={})
    if settings.get("do_lower_case"):
        raise EncoderError(f"{folder} lower-cases texts before the tokenizer, which is not implemented.")
    query_prompt, passage_prompt = _prompts(folder)
    return TowerSpec(
        name=folder.name,
        weights=f"folder:{transformer}",
        dimensions=int(config["hidden_size"]),
        slot=DIMENSIONS,
        pooling="mean",  # its module says which
        causal=_causal(folder, config),
        max_tokens=_max_tokens(transformer, config, settings),
        query_prompt=query_prompt,
        passage_prompt=passage_prompt,
        end_of_text=_end_of_text(transformer),
    )


def _jina_tower(folder: Path, transformer: Path, config: dict[str, Any]) -> TowerSpec:
    """Describe jina-embeddings-v3: the adapter and the prompt of a role are those of its retrieval task."""
    tasks = tuple(config.get("lora_adaptations") or TASKS)
    if missing := [task for task in PROMPTS if task not in tasks]:
        raise EncoderError(f"{folder} has the task adapters {', '.join(tasks)}, not {' and '.join(missing)}.")
    prompts = {**PROMPTS, **(config.get("task_instructions") or {})}
    return TowerSpec(
        name=folder.name,
        weights=f"folder:{transformer}",
        dimensions=int(config["hidden_size"]),
        slot=DIMENSIONS,
        pooling="mean",
        causal=False,
        max_tokens=min(MAX_TOKENS, int(config.get("max_position_embeddings", MAX_TOKENS))),
        query_prompt=prompts["retrieval.query"],
        passage_prompt=prompts["retrieval.passage"],
        query_adapter="retrieval.query",
        passage_adapter="retrieval.passage",
        matryoshka_dimensions=tuple(config.get("matryoshka_dimensions") or MATRYOSHKA),
        licence="CC-BY-NC-4.0",
        licence_note="no commercial use",
    )


def _causal(folder: Path, config: dict[str, Any]) -> bool:
    """Return whether attention is causal; where the configuration and the code beside it may disagree, refuse."""
    code = str((config.get("auto_map") or {}).get("AutoModel", ""))
    if config.get("is_causal") is False and "modeling_qwen" in code:
        # gte-Qwen2-1.5B's own code attends causally whatever its config.json says (vLLM's supported models, note)
        raise EncoderError(
            f"{folder}: config.json says is_causal=false, and its code ({code}) is known to attend causally.",
            remedy='Say which: an encoder file {"preset": "qodo", "weights": {"qodo": "'
            + str(folder)
            + '"}} takes the '
            "preset's choice; one with `towers` names it as `causal`. See `pgembed export --help`.",
        )
    return bool(config.get("is_causal", config.get("is_decoder", False) or config.get("model_type") in _CAUSAL))


def _end_of_text(folder: Path) -> str:
    """Return the token that code beside tokenizer.json appends to each text; empty where there is none."""
    settings = read_json(folder / "tokenizer_config.json", missing={})
    token = settings.get("eos_token")
    token = token.get("content") if isinstance(token, dict) else token
    if not (settings.get("add_eos_token") and token):
        return ""
    return "" if ends_with(read_json(folder / "tokenizer.json", missing={}), token) else str(token)


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
    settings = read_json(folder / "config_sentence_transformers.json", missing={})
    prompts = settings.get("prompts") or {}
    default = prompts.get(settings.get("default_prompt_name"), "")
    query = prompts.get("query", default)
    passage = prompts.get("passage") or prompts.get("document") or default
    return str(query), str(passage)


def _max_tokens(folder: Path, config: dict[str, Any], settings: dict[str, Any]) -> int:
    """Return the least of the limits that are given, as sentence-transformers does."""
    if settings.get("max_seq_length"):
        return int(settings["max_seq_length"])
    tokenizer = read_json(folder / "tokenizer_config.json", missing={})
    limits = [config.get("max_position_embeddings"), tokenizer.get("model_max_length")]
    given = [int(limit) for limit in limits if limit]
    if not given:
        raise EncoderError(f"{folder} does not say how many tokens it takes (max_seq_length, model_max_length).")
    return min(given)


def read_json(path: Path, *, missing: Any = None) -> Any:
    """Return what a file of JSON holds, or `missing` where there is no such file.

    Raises:
        EncoderError: it cannot be read.
    """
    if missing is not None and not path.exists():
        return missing
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EncoderError(f"{path} cannot be read: {error}") from error
