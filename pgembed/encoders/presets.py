"""The encoders that pgembed knows by name: data, one TOML file each, with the sources of what it says."""

import tomllib
from importlib.resources import files

from pgembed.encoders.spec import EncoderSpec
from pgembed.errors import EncoderError


def _read_all() -> dict[str, EncoderSpec]:
    found = (entry for entry in files("pgembed.encoders").joinpath("preset_data").iterdir())
    texts = [entry.read_text(encoding="utf-8") for entry in found if entry.name.endswith(".toml")]
    specs = [EncoderSpec.from_json(tomllib.loads(text)) for text in texts]
    # the small ones first: they are what a newcomer can use at once
    return {spec.name: spec for spec in sorted(specs, key=lambda spec: sum(tower.dimensions for tower in spec.towers))}


PRESETS: dict[str, EncoderSpec] = _read_all()


def preset(name: str) -> EncoderSpec:
    """Return the preset `name`.

    Raises:
        EncoderError: there is none of that name.
    """
    try:
        return PRESETS[name]
    except KeyError:
        raise EncoderError(f"There is no preset {name!r}.", remedy=f"There are {', '.join(PRESETS)}.") from None
