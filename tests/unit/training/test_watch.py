import math
from dataclasses import replace

import pytest
import torch

from pgembed.training.options import TrainingOptions
from pgembed.training.runs import StepMetrics
from pgembed.training.watch import RULES, UpdateMeter, Watch

HEALTHY = StepMetrics(
    step=0,
    loss=0.11,
    gradient_norm=1.0,
    learning_rate=1e-4,
    zero_loss_share=0.4,
    triplets_per_second=10.0,
    anchor_cosine=0.3,
    anchor_deviation=0.8,
    update_ratio=1e-3,
)
ILL = {
    "collapse": {"anchor_cosine": 0.99},
    "loss at the margin": {"loss": 0.2019},
    "nothing to learn": {"zero_loss_share": 1.0},
    "no gradient": {"gradient_norm": 0.0},
    "large updates": {"update_ratio": 0.2},
}


def test_every_rule_is_tried() -> None:
    assert ILL.keys() == RULES.keys()


@pytest.mark.parametrize("name", ILL)
def test_an_alarm_is_raised_once_when_a_state_lasts(name: str) -> None:
    watch, lasting = Watch(TrainingOptions(loss="triplet")), RULES[name].lasting
    ill = replace(HEALTHY, **ILL[name])
    # one step short of it, twice, with a healthy one between
    for step in range(2 * lasting):
        assert watch.observe(replace(HEALTHY if step % lasting == 0 else ill, step=step)) == []
    assert watch.alarms == {}
    raised = [alarm for step in range(100, 110 + lasting) for alarm in watch.observe(replace(ill, step=step))]
    assert [alarm.name for alarm in raised] == [name]
    # all but one of the steps that it takes were there before
    assert raised[0].first_step == 101 - lasting
    assert watch.alarms[name].steps == 10 + lasting + (lasting - 1)


def test_other_losses_have_no_margin_and_absent_figures_raise_nothing() -> None:
    watch = Watch(TrainingOptions(loss="in-batch"))
    for step in range(30):
        assert not watch.observe(replace(HEALTHY, step=step, loss=0.2, anchor_cosine=None, update_ratio=None))


def test_updates_are_measured_against_the_weights() -> None:
    random = torch.Generator().manual_seed(0)
    big, small = (torch.nn.Parameter(torch.randn(size, 70, generator=random)) for size in (3000, 5))
    bias = torch.nn.Parameter(torch.zeros(7))
    meter = UpdateMeter([big, small, bias])
    assert meter.ratio() is None
    before = [p.detach().clone() for p in (big, small)]
    meter.start()
    with torch.no_grad():
        for p in (big, small, bias):
            p.add_(0.01 * torch.randn(p.shape, generator=random))
    change = math.sqrt(
        sum(float((p.detach() - old).square().sum()) for p, old in zip((big, small), before, strict=True))
    )
    whole = change / math.sqrt(sum(float(old.square().sum()) for old in before))
    assert meter.ratio() == pytest.approx(whole, rel=0.02)  # a sample of 70,000 of 210,000
    meter.start()
    assert meter.ratio() == 0
