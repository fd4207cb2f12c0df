"""Which model answers: the fine-tuned one only where it gains at home, loses nowhere, and beats who answers now."""

from datetime import UTC, datetime

import pytest

from pgembed.cli.quickstart.decision import decide
from pgembed.evaluation.bootstrap import PairedTest
from pgembed.evaluation.store import Comparison, Evaluation


def evaluation(encoder: str, score: float, dataset: str = "held-out") -> Evaluation:
    metrics = {"ndcg@10": {"mean": score, "low": score - 0.02, "high": score + 0.02}}
    return Evaluation(1, 1, encoder, dataset, "f", 100, 40, {}, metrics, {}, datetime.now(UTC))


def comparison(before: float, after: float, dataset: str = "held-out", *, width: float = 0.01) -> Comparison:
    difference = after - before
    test = PairedTest(difference, difference - width, difference + width, 0.01)
    return Comparison(evaluation("base", before, dataset), evaluation("tuned", after, dataset), {"ndcg@10": test})


def test_a_gain_at_home_answers() -> None:
    decision = decide([comparison(0.6, 0.7)], None)
    assert decision.answers == "tuned"
    assert "+0.100 [+0.090, +0.110]" in decision.verdict


def test_a_gain_that_may_be_chance_is_called_so() -> None:
    decision = decide([comparison(0.6, 0.605)], None)
    assert decision.answers == "tuned"
    assert "may be chance" in decision.verdict


@pytest.mark.parametrize("after", [0.6, 0.55])
def test_no_gain_at_home_leaves_the_base(after: float) -> None:
    decision = decide([comparison(0.6, after)], None)
    assert decision.answers == "base"
    assert "no gain" in decision.verdict


def test_a_loss_outside_beyond_its_interval_leaves_the_base() -> None:
    decision = decide([comparison(0.6, 0.7), comparison(0.6, 0.57, "cosqa")], None)
    assert decision.answers == "base"
    assert "worse on data from outside" in decision.verdict
    assert "cosqa: ndcg@10 -0.030" in decision.verdict
    assert decide([comparison(0.6, 0.7), comparison(0.6, 0.595, "cosqa")], None).answers == "tuned"


@pytest.mark.parametrize(("score", "answers"), [(0.69, "tuned"), (0.7, "active"), (0.8, "active")])
def test_a_third_model_that_is_as_good_stays(score: float, answers: str) -> None:
    decision = decide([comparison(0.6, 0.7)], evaluation("third", score))
    assert decision.answers == answers
    assert ("third" in decision.verdict) == (answers == "active")
