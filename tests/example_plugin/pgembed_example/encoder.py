"""An encoder by name: a description, and weights that this package carries."""

from pgembed.encoders.spec import DIMENSIONS, EncoderSpec, TowerSpec

TINY = EncoderSpec(
    name="example-tiny",
    towers=(
        TowerSpec(
            name="example-tiny",
            # config.json, model.safetensors and tokenizer.json in this package's folder `model`
            weights="package:pgembed_example/model",
            dimensions=16,
            slot=DIMENSIONS,  # one tower takes all of the vector's places, and leaves the rest zero
            pooling="mean",
            causal=False,  # BERT attends both ways
            max_tokens=64,
            licence="Apache-2.0",
        ),
    ),
)
