"""A run's metrics in TensorBoard's format, each step once however often the run is interrupted."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pgembed.errors import MissingExtra
from pgembed.training.runs import StepMetrics, ValidationMetrics

_STEP_TAGS = {
    "loss": "train/loss",
    "gradient_norm": "train/gradient_norm",
    "learning_rate": "train/learning_rate",
    "zero_loss_share": "train/zero_loss_share",
    "update_ratio": "train/update_ratio",
    "anchor_cosine": "train/anchor_cosine",
    "anchor_deviation": "train/anchor_deviation",
    "triplets_per_second": "train/triplets_per_second",
}


def require_tensorboard() -> None:
    """Check that the library is installed.

    Raises:
        MissingExtra: it is not; the message has the line that installs it.
    """
    if find_spec("tensorboard") is None:
        raise MissingExtra("tensorboard", "--tensorboard", "there is no tensorboard")


class Board:
    """One run's folder of events. Begins anew with what is known of the run: a killed process may have left more."""

    def __init__(self, folder: Path, metrics: list[StepMetrics], validations: list[ValidationMetrics]) -> None:
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer: Any = SummaryWriter(str(folder))
        for step in metrics:
            self.add_step(step)
        for validation in validations:
            self.add_validation(validation)

    def add_step(self, metrics: StepMetrics) -> None:
        """Write one step's figures; those that were not measured are left out."""
        for name, tag in _STEP_TAGS.items():
            if (value := getattr(metrics, name)) is not None:
                self._writer.add_scalar(tag, value, metrics.step)

    def add_validation(self, validation: ValidationMetrics) -> None:
        """Write one validation's figures."""
        for tag, value in (("loss", validation.loss), ("ndcg_10", validation.ndcg), ("mrr_10", validation.mrr)):
            if value is not None:
                self._writer.add_scalar(f"validation/{tag}", value, validation.step)

    def flush(self) -> None:
        """Put what was written on the disk."""
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        self._writer.close()
