"""Which exported encoder a reindex uses when none is named by its folder.

Reads `generations`, `active_generation`, and the folder of exported encoders.
"""

from pathlib import Path
from typing import Any

import psycopg

from pgembed.encoders.artefact import MANIFEST, Manifest, load_manifest
from pgembed.errors import EncoderError, GenerationError
from pgembed.vectors.generations import active_id, get_generation


def choose_artefact(conn: psycopg.Connection[Any], models: Path, name: str | None = None) -> Path:
    """Return the folder of the encoder `name`; without a name the active generation's, else the newest in `models`.

    Raises:
        GenerationError: there is none, or the active generation's is gone.
    """
    if name is not None:
        return _named(models, name)
    active = active_id(conn)
    if active is not None:
        folder = Path(get_generation(conn, active).onnx_path)
        if not folder.is_dir():
            raise GenerationError(
                f"The encoder of the active generation {active} is gone: there is no folder {folder}.",
                remedy="Copy or export it there again, or choose another one: pgembed reindex --artefact DIR",
            )
        return folder
    exported = exported_encoders(models)
    if not exported:
        raise GenerationError(
            f"There is no exported encoder in {models}.",
            remedy="Make one (pgembed export --encoder minilm), or name its folder: pgembed reindex --artefact DIR",
        )
    return exported[-1].path


def exported_encoders(models: Path) -> list[Manifest]:
    """Return the encoders in `models`, the newest last; folders that are none are passed over."""
    found = []
    for path in models.glob(f"*/{MANIFEST}"):
        try:
            found.append((path.stat().st_mtime_ns, load_manifest(path.parent, verify=False)))
        except EncoderError:  # one that was chosen by name says what is wrong with it when it is loaded
            continue
    return [manifest for _, manifest in sorted(found, key=lambda item: (item[0], item[1].path))]


def _named(models: Path, name: str) -> Path:
    if (models / name / MANIFEST).is_file():
        return models / name
    known = exported_encoders(models)
    # a variant has its encoder's name: by that name the encoder itself is meant, by the folder's the variant
    named = [manifest for manifest in known if manifest.spec.name == name]
    matching = [manifest.path for manifest in sorted(named, key=lambda manifest: manifest.precision == "float32")]
    if not matching:
        there = ", ".join(sorted({manifest.spec.name for manifest in known})) or "none"
        raise GenerationError(
            f"There is no exported encoder {name!r} in {models}; there are: {there}.",
            remedy=f"Make it: pgembed export --encoder {name}; `pgembed encoders` lists what can be made.",
        )
    return matching[-1]
