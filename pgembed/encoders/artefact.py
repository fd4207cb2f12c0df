"""An exported encoder: a folder with everything that embedding needs, each file with its hash.

encoder.json            spec, fingerprint, hashes, how it was made, the parity that was measured
model.onnx              one graph: tokens of every tower in, (B, 2560) normalised floats out; with task adapters
                        the role of each text is an input too
model.onnx.data         its weights, where they are more than a graph's file holds (2 GB)
tokenizer-<tower>.json  as published, with the end of text that the tower says
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgembed.encoders.spec import EncoderSpec, TowerSpec
from pgembed.encoders.weights import file_sha256
from pgembed.errors import EncoderError

MANIFEST = "encoder.json"
MODEL = "model.onnx"
OUTPUT = "sentence_embedding"
ROLE = "role"
"""Input of an encoder with task adapters: each text's role, (B,) int64, by its place in `spec.ROLES`."""
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What encoder.json says."""

    path: Path
    spec: EncoderSpec
    fingerprint: str
    """sha256 over spec and weights: what makes two encoders the same."""
    files: dict[str, str]
    """File name to sha256."""
    parity: dict[str, Any]
    producer: dict[str, Any]
    variant_of: str | None = None
    """Of a graph of lower precision: hash of the float32 graph that it was made from."""
    gate: dict[str, Any] | None = None
    """What such a variant was measured by before it was written, and what came out; see `training.variant_gate`."""

    @property
    def onnx_sha256(self) -> str:
        """Hash of the graph."""
        return self.files[MODEL]

    @property
    def precision(self) -> str:
        """float32, float16 or int8."""
        return str(self.producer.get("precision", "float32"))

    @property
    def is_unjudged(self) -> bool:
        """Whether it is a variant that nobody measured the search of."""
        return self.variant_of is not None and not (self.gate or {}).get("passed")

    @property
    def model_path(self) -> Path:
        return self.path / MODEL

    def tokenizer_path(self, tower: TowerSpec) -> Path:
        return self.path / tokenizer_name(tower)

    def to_json(self) -> dict[str, Any]:
        """Return what encoder.json holds."""
        variant = {} if self.variant_of is None else {"variant_of": self.variant_of, "gate": self.gate}
        return {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "spec": self.spec.to_json(),
            "files": self.files,
            "parity": self.parity,
            "producer": self.producer,
            **variant,
        }


def tokenizer_name(tower: TowerSpec) -> str:
    """Return the tokenizer's file name in an artefact."""
    return f"tokenizer-{tower.name}.json"


def input_names(spec: EncoderSpec) -> list[tuple[str, str]]:
    """Return the graph's `(input_ids, attention_mask)` names for each tower; a single tower's carry no prefix."""
    if len(spec.towers) == 1:
        return [("input_ids", "attention_mask")]
    return [(f"{tower.name}_input_ids", f"{tower.name}_attention_mask") for tower in spec.towers]


def load_manifest(path: Path, *, verify: bool = True) -> Manifest:
    """Read an artefact's manifest, and with `verify` hash every file that it names.

    Raises:
        EncoderError: it is not an artefact, was made by a newer version, or a file is missing or has changed.
    """
    manifest_path = path / MANIFEST
    try:
        values = json.loads(manifest_path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EncoderError(
            f"{path} is not an exported encoder: it has no {MANIFEST}.", remedy="Make one: pgembed export --help"
        ) from None
    except (OSError, ValueError) as error:
        raise EncoderError(f"{manifest_path} cannot be read: {error}") from error
    try:
        if values["format"] != FORMAT:
            raise EncoderError(f"{manifest_path} is of format {values['format']}; this version reads {FORMAT}.")
        manifest = Manifest(
            path=path,
            spec=EncoderSpec.from_json(values["spec"]),
            fingerprint=str(values["fingerprint"]),
            files={str(name): str(digest) for name, digest in values["files"].items()},
            parity=dict(values["parity"]),
            producer=dict(values["producer"]),
            variant_of=values.get("variant_of"),
            gate=values.get("gate"),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise EncoderError(f"{manifest_path} lacks or garbles a field: {error}") from error
    needed = {MODEL, *(tokenizer_name(tower) for tower in manifest.spec.towers)}
    if missing := needed - set(manifest.files):
        raise EncoderError(f"{manifest_path} names no hash for {', '.join(sorted(missing))}.")
    for name, digest in manifest.files.items():
        if Path(name).name != name:
            raise EncoderError(f"{manifest_path} names a file outside its folder: {name!r}")
        file = path / name
        if not file.is_file():
            raise EncoderError(f"{file} is missing.", remedy="Export the encoder again.")
        if verify and file_sha256(file) != digest:
            raise EncoderError(
                f"{file} is not the file that was exported: its sha256 differs.", remedy="Export the encoder again."
            )
    return manifest
