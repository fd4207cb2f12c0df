"""What a user names as an encoder: a name, a folder, or an encoder file that puts towers together.

An encoder file is JSON, in one of two forms; paths in it are relative to it:

    {"preset": "qodo-jina", "weights": {"qodo": "/models/qodo", "jina-v3": "/models/jina-v3"}, "name": "ours"}
    {"name": "ours", "towers": [{"name": "qodo", "weights": "folder:/models/qodo", "dimensions": 1536, …}, …]}

The first takes everything but the place of the weights from the preset. `weights` may leave towers out, and `hub:` and
`package:` places work in it too. `"tower_weights": {"qodo": 0.9, "jina-v3": 0.4}` says how much each counts in the
joined vector, where `pgembed eval --tune-weights` has found other than equal ones to be better.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from pgembed.encoders.catalogue import find_encoder, no_such_encoder
from pgembed.encoders.folder import folder_spec, read_json
from pgembed.encoders.spec import EncoderSpec, TowerSpec
from pgembed.errors import EncoderError


def resolve_spec(source: str | Path) -> EncoderSpec:
    """Return the encoder that `source` names: one known by name, a folder of a model, or an encoder file.

    Raises:
        EncoderError: it is none of these.
        PluginError: the name belongs to a plugin that cannot be used.
    """
    if (known := find_encoder(str(source))) is not None:
        return known.spec
    path = Path(source).expanduser()
    if path.is_dir():
        return folder_spec(path)
    if path.suffix == ".json" and path.is_file():
        return file_spec(path)
    raise no_such_encoder(str(source))


def file_spec(path: Path) -> EncoderSpec:
    """Read an encoder file.

    Raises:
        EncoderError: it names a preset or a tower that is not there, or is no such file.
    """
    values = read_json(path)
    if not isinstance(values, dict):
        raise EncoderError(f"{path} is no encoder file: it holds no JSON object.")
    base = path.absolute().parent
    if "towers" in values:
        spec = EncoderSpec.from_json({"name": path.stem, **values})
        return replace(spec, towers=tuple(_placed(tower, tower.weights, base) for tower in spec.towers))
    if unknown := sorted(set(values) - {"preset", "weights", "tower_weights", "name"}):
        raise EncoderError(f"{path} has unknown fields: {', '.join(unknown)}.")
    known = find_encoder(str(values.get("preset")))
    if known is None:
        raise EncoderError(f"{path} names neither `towers` nor a known encoder as `preset`: {values.get('preset')!r}.")
    weights: dict[str, Any] = dict(values.get("weights") or {})
    counts: dict[str, Any] = dict(values.get("tower_weights") or {})
    towers = tuple(_placed(tower, str(weights.pop(tower.name, tower.weights)), base) for tower in known.spec.towers)
    towers = tuple(replace(tower, weight=_number(path, counts.pop(tower.name, tower.weight))) for tower in towers)
    if unknown := [*weights, *counts]:
        names = ", ".join(tower.name for tower in towers)
        raise EncoderError(f"{path} gives weights for {', '.join(unknown)}; {known.spec.name} has the towers {names}.")
    return EncoderSpec(str(values.get("name", known.spec.name)), towers)


def _number(path: Path, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EncoderError(f"{path}: a tower's weight is a number, not {value!r}.")
    return float(value)


def _placed(tower: TowerSpec, place: str, base: Path) -> TowerSpec:
    scheme = place.partition(":")[0]
    if scheme in ("hub", "package"):
        return replace(tower, weights=place)
    folder = (base / Path(place.removeprefix("folder:")).expanduser()).absolute()
    return replace(tower, weights=f"folder:{folder}")
