"""A graph in lower precision: weights in 8 bits, or weights and arithmetic in 16.

Left out after measuring: ONNX Runtime's fusions for transformers. With MiniLM on 2 CPU cores they changed the float32
graph's processor time by 0 to 3%, and made the int8 one 6 to 14% slower, with Attention fused or without.
"""

import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pgembed.encoders.artefact import MODEL
from pgembed.encoders.spec import EncoderSpec
from pgembed.training.export import write_graph
from pgembed.training.model import load_model

# Size from which weights go into a file beside the graph: protobuf's limit is 2 GiB, and the graph needs some of it.
LARGEST_GRAPH_BYTES = 2**31 - 2**26


def write_half(spec: EncoderSpec, folders: list[Path], graph: Path) -> None:
    """Write `graph` with each tower's transformer in float16; pooling, normalisation and output stay in float32.

    It is the torch module that is halved, not its graph: so what transformers computes in float32 whatever the weights
    are (RMSNorm, softmax, rotary positions) stays so, and pooling sums in float32, where float16 would overflow.
    """
    model = load_model(spec, folders)
    for tower in model.towers:
        tower.transformer.half()
    write_graph(model, graph)


def write_int8(source: Path, graph: Path, operators: Sequence[str]) -> None:
    """Write the float32 graph `source` as `graph` with the weights of `operators` in int8, and dynamic activations.

    Matrices are quantised per output channel: with one scale a tensor the least cosine of MiniLM's vectors fell from
    .987 to .901. Weights are signed and activations unsigned, which VNNI multiplies directly (unsigned weights took 1.7
    times the processor time). A matrix that is no constant, such as a task adapter chosen by each text's role, stays
    in float32.

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", section 2.1.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # it puts files beside what it reads, and an artefact may be read-only; links are refused by onnx
    with tempfile.TemporaryDirectory(prefix=".quantise-", dir=graph.parent) as scratch, _quiet():
        copies = [shutil.copyfile(file, Path(scratch) / file.name) for file in source.parent.glob(f"{MODEL}*")]
        quantize_dynamic(
            Path(scratch) / source.name,
            graph,
            op_types_to_quantize=list(operators),
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=sum(file.stat().st_size for file in copies) > LARGEST_GRAPH_BYTES,
            extra_options={"MatMulConstBOnly": True},
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep quantize_dynamic from logging its advice at each call."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
