"""What a training run is told. Each default has its reason beside it."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from pgembed.errors import TrainingError

Loss = Literal["triplet", "in-batch"]
Distance = Literal["cosine", "euclidean"]
Negatives = Literal["mined", "semi-hard", "hardest"]
Schedule = Literal["linear", "cosine", "constant"]
Precision = Literal["auto", "fp32", "bf16"]
KeepBest = Literal["score", "loss"]

# Not among what a resume must have in common: how often a run is saved, and how much of that is kept, decides nothing.
_ELSEWHERE = ("view", "kind", "language", "seed", "checkpoint_every", "keep_last")


@dataclass(frozen=True)
class TrainingOptions:
    """Everything that decides the outcome of a run, beside the data and the base model."""

    view: str = "triplets"
    kind: str | None = "docstring"
    """Code-to-code triplets alone made search by description 7 points worse; docstrings feed training by default."""
    language: str | None = None
    code_share: float | None = None
    """Part of every batch that is code-to-code triplets, rounded to whole ones; of the kind docstring alone. None: a
    quarter, where the view has such triplets (`data.settled`): beside docstrings they keep what the base knew. See the
    README, "What it pays"."""
    steps: int = 100
    batch: int = 64
    """Triplets a step."""
    micro_batch: int | None = None
    """Triplets whose texts are in memory with their graph at a time; None: all. The gradient is the same."""
    loss: Loss = "in-batch"
    """In 100 steps of 16, nDCG@10 on other files and on packages never seen rose by .048 and .036; by the triplet loss
    by .034 and .029."""
    distance: Distance = "cosine"
    margin: float = 0.2
    negatives: Negatives = "hardest"
    """Triplet loss: against the mined negative alone, or against one chosen among it and the other rows' bodies."""
    scale: float = 20.0
    """Inverse temperature of the in-batch loss, as sentence-transformers sets it for cosine."""
    matryoshka: tuple[int, ...] = ()
    """Widths whose cut vectors get the loss as well as the whole ones."""
    learning_rate: float = 8e-5
    """At its peak."""
    schedule: Schedule = "linear"
    warmup_share: float = 0.1
    weight_decay: float = 0.0
    """A run of a few hundred steps that is averaged with its base is held near it by that already."""
    clip_norm: float = 1.0
    interpolate: float = 0.55
    """Share of the trained weights in the result, the rest is the base's: what the base knew is kept. See the README,
    "What it pays"."""
    lora_rank: int = 0
    """Rank of the update of each weight matrix; 0: the weights themselves are trained."""
    max_tokens: int = 128
    """Texts are cut here in training only; most docstrings and half of the bodies are shorter."""
    precision: Precision = "auto"
    """bf16 autocast made a step 1.7 times faster on a processor with bf16 units; auto uses it there."""
    gradient_checkpointing: bool = False
    """Layers are computed again on the way back instead of being kept: about a third more time, far less memory."""
    seed: int = 0
    """Where in the view's order, which is a hash's, the run begins."""
    evaluate_every: int | None = None
    """Steps between two validations; None: halfway. The base and the result are always measured; 0: nothing is."""
    evaluation_rows: int | None = None
    """Validation triplets; None: as many as take about a twentieth of the training, from 32 to 256."""
    patience: int | None = None
    """Validations without a better one after which a run stops, with the best weights; None: it takes every step."""
    keep_best: KeepBest | None = None
    """Take the weights of the best validation, by nDCG@10 or by loss; None: those of the last step."""
    checkpoint_every: int = 25
    keep_last: int = 2
    """Checkpoints of steps that stay on the disk while a run is at work."""

    def __post_init__(self) -> None:
        positive = ("steps", "batch", "margin", "scale", "learning_rate", "clip_norm", "checkpoint_every", "keep_last")
        for name in (*positive, "micro_batch", "evaluation_rows", "patience"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise TrainingError(f"{name} must be positive, and is {value}.")
        for name in ("weight_decay", "lora_rank", "evaluate_every"):
            if (getattr(self, name) or 0) < 0:
                raise TrainingError(f"{name} must not be negative, and is {getattr(self, name)}.")
        if not 0 <= self.warmup_share < 1 or not 0 < self.interpolate <= 1:
            raise TrainingError("warmup_share must lie in [0, 1), interpolate in (0, 1].")
        if self.max_tokens < 8:
            raise TrainingError(f"max_tokens must be at least 8, and is {self.max_tokens}.")
        if (self.code_share and self.kind != "docstring") or not 0 <= (self.code_share or 0) < 1:
            raise TrainingError(
                f"code_share must lie in [0, 1), and beside kind 'docstring', and is {self.code_share} of {self.kind}."
            )
        if self.code_share and not 0 < round(self.batch * self.code_share) < self.batch:
            raise TrainingError(f"code_share {self.code_share} of a batch of {self.batch} is none of it, or all.")
        if any(width < 1 for width in self.matryoshka):
            raise TrainingError(f"matryoshka widths must be positive, and are {self.matryoshka}.")
        for value, known in (
            (self.loss, Loss), (self.distance, Distance), (self.precision, Precision), (self.schedule, Schedule),
            (self.negatives, Negatives), (self.keep_best or "score", KeepBest),
        ):  # fmt: skip
            if value not in get_args(known):
                raise TrainingError(f"{value!r} is none of {', '.join(get_args(known))}.")
        if self.evaluate_every == 0 and (self.patience or self.keep_best):
            raise TrainingError(
                "patience and keep_best need validations.", remedy="Leave --evaluate-every away, or give it a number."
            )

    @property
    def keeps(self) -> KeepBest | None:
        """By what the weights are chosen; who stops early takes the best."""
        return self.keep_best or ("score" if self.patience else None)

    def of_kind(self, kind: str | None) -> "TrainingOptions":
        """Return these options for triplets of one kind alone."""
        return self if kind == self.kind else replace(self, kind=kind, code_share=0.0)

    def filters(self, split: str = "train") -> dict[str, Any]:
        """Which rows of the view are read."""
        return {"split": split, "kind": self.kind, "language": self.language}

    def hyperparameters(self) -> dict[str, Any]:
        """What is stored with the run, and must be equal for a resume; plain JSON."""
        values = {name: value for name, value in asdict(self).items() if name not in _ELSEWHERE}
        return {**values, "matryoshka": list(self.matryoshka)}
