"""Fine-tuning with torch: model, loss, optimiser, loop, checkpoint, ONNX export. The only part that imports torch."""

import os
from importlib.util import find_spec

from pgembed.errors import MissingExtra

# Read by OpenMP when torch is imported. By default its threads spin while they wait for one another; where another
# process (the embedded Postgres, for one) needs a core, they take it from the very thread they wait for: with one of
# two cores busy a training step took 20 s so, and 1.5 s when waiting threads sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Read by cuBLAS when it starts: with a fixed workspace its sums have a fixed order. Without it torch, held to
# deterministic operations, refuses to multiply on a GPU.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def require_torch() -> None:
    """Check, without importing them, that the libraries of training and export are installed.

    Raises:
        MissingExtra: one is not; the message has the line that installs it.
    """
    for extra, modules in {
        "train": ("torch", "transformers", "safetensors", "onnx"),
        "onnx": ("tokenizers", "onnxruntime"),
    }.items():
        for module in modules:
            if find_spec(module) is None:
                raise MissingExtra(extra, "Training and export", f"there is no {module}")
