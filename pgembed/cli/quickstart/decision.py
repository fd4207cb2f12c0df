"""Which model answers searches at the end: decided by what was measured, and said."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pgembed.evaluation.store import Comparison, Evaluation

GATE_METRIC = "ndcg@10"


@dataclass(frozen=True)
class Decision:
    """Who answers, and why."""

    answers: Literal["tuned", "base", "active"]
    verdict: str


def decide(comparisons: Sequence[Comparison], rival: Evaluation | None) -> Decision:
    """Choose by the base against the fine-tuned model, the user's own code first, then data from outside.

    `rival` is the model that answers now, on the user's own code, where that is a third one. The fine-tuned model must
    gain on the user's own code, lose beyond its interval nowhere else, and be ahead of the rival.
    """
    own, outside = comparisons[0], comparisons[1:]
    gain = own.tests[GATE_METRIC]
    said = _difference(own)
    worse = [_difference(comparison) for comparison in outside if comparison.tests[GATE_METRIC].worse]
    if gain.difference <= 0 or worse:
        why = f"it is worse on data from outside ({'; '.join(worse)}; {said})" if worse else f"{said} is no gain"
        return Decision("base", f"The fine-tuned model was not activated: {why}. The base model answers.")
    if rival is not None and rival.mean(GATE_METRIC) >= own.candidate.mean(GATE_METRIC):
        return Decision(
            "active",
            f"The fine-tuned model is better than the base ({said}), but not than the active one "
            f"({rival.encoder}: {rival.mean(GATE_METRIC):.3f}), which stays.",
        )
    sure = "" if gain.better else "; with so few queries that may be chance"
    return Decision("tuned", f"The fine-tuned model is better ({said}{sure}) and answers searches.")


def _difference(comparison: Comparison) -> str:
    test = comparison.tests[GATE_METRIC]
    return f"{comparison.candidate.dataset}: {GATE_METRIC} {test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}]"
