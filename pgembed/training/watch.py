"""What a step tells about the health of a run, and the alarms that follow from several in a row."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from pgembed.training.options import TrainingOptions
from pgembed.training.runs import StepMetrics
from pgembed.training.sharding import own_part

_SAMPLE = 65_536


@dataclass(frozen=True)
class Rule:
    """A state that is an alarm when it lasts."""

    name: str
    lasting: int
    """Steps in a row."""
    says: str


RULES = {
    rule.name: rule
    for rule in (
        Rule("collapse", 5, "the anchors' vectors are nearly one and the same (mean cosine above 0.98)"),
        Rule("loss at the margin", 10, "the loss stays within 1% of the margin: positives are as far as negatives"),
        Rule("nothing to learn", 10, "at least 98% of the triplets give no loss: they are too easy, or learnt"),
        Rule("no gradient", 10, "the gradient is nearly zero (norm below 1e-6)"),
        Rule("large updates", 3, "a step changes the weights by more than a tenth: the learning rate is too high"),
    )
}


@dataclass
class Alarm:
    """A rule that held for as long as it takes."""

    name: str
    first_step: int
    """The first of the steps in a row."""
    steps: int
    """All steps at which it held, once it had been raised."""
    says: str


class Watch:
    """Follows a run step by step. Fed the same metrics again, as after a resume, it comes to the same."""

    def __init__(self, options: TrainingOptions) -> None:
        self._options = options
        self._in_a_row = dict.fromkeys(RULES, 0)
        self.alarms: dict[str, Alarm] = {}

    def observe(self, metrics: StepMetrics) -> list[Alarm]:
        """Take one more step in, and return the alarms that it raises for the first time."""
        raised = []
        for name, holds in self._states(metrics).items():
            rule = RULES[name]
            self._in_a_row[name] = self._in_a_row[name] + 1 if holds else 0
            if self._in_a_row[name] < rule.lasting:
                continue
            if name in self.alarms:
                self.alarms[name].steps += 1
            else:
                self.alarms[name] = Alarm(name, metrics.step - rule.lasting + 1, rule.lasting, rule.says)
                raised.append(self.alarms[name])
        return raised

    def _states(self, m: StepMetrics) -> dict[str, bool]:
        margin = self._options.margin
        return {
            "collapse": m.anchor_cosine is not None and m.anchor_cosine > 0.98,
            "loss at the margin": self._options.loss == "triplet" and abs(m.loss - margin) <= 0.01 * margin,
            "nothing to learn": m.zero_loss_share >= 0.98,
            "no gradient": m.gradient_norm < 1e-6,
            "large updates": m.update_ratio is not None and m.update_ratio > 0.1,
        }


class UpdateMeter:
    """Measures ‖Δθ‖ / ‖θ‖ of a step on a fixed sample of each weight matrix: all of it would cost 4% of a step."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        # views: they follow the weights, which are changed in place
        self._views = [
            own_part(p.detach()).view(-1)[:: max(1, p.numel() // _SAMPLE)]
            for p in parameters
            if p.dim() > 1 and p.is_contiguous()
        ]
        self._before: list[torch.Tensor] = []

    def start(self) -> None:
        """Remember the weights before a step."""
        self._before = [view.clone() for view in self._views]

    def ratio(self) -> float | None:
        """Return how much the step has changed them; None where all are zero."""
        if not self._before:
            return None
        # the norms' squares are added in Python: a few dozen numbers
        before = sum(float(old.square().sum()) for old in self._before)
        change = sum(float((view - old).square().sum()) for view, old in zip(self._views, self._before, strict=True))
        return (change / before) ** 0.5 if before > 0 else None
