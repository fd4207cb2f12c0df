"""The intervals and the paired test against SciPy's, and against what theory says."""

import numpy as np
import pytest
import scipy.stats

from pgembed.evaluation import bootstrap
from pgembed.evaluation.bootstrap import bootstrap_means, paired_bootstrap

_RNG = np.random.default_rng(7)
_SCORES = _RNG.beta(0.6, 0.9, size=(200, 3))


def test_the_interval_is_scipys() -> None:
    for column, ours in enumerate(bootstrap_means(_SCORES)):
        theirs = scipy.stats.bootstrap(
            (_SCORES[:, column],), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1)
        ).confidence_interval
        assert ours.mean == pytest.approx(_SCORES[:, column].mean())
        assert ours.low == pytest.approx(theirs.low, abs=0.003)
        assert ours.high == pytest.approx(theirs.high, abs=0.003)


def test_the_interval_of_many_queries_is_the_normal_one() -> None:
    hits = np.zeros((1000, 1))
    hits[:300] = 1
    (interval,) = bootstrap_means(hits)
    half = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert interval.low == pytest.approx(0.3 - half, abs=0.003)
    assert interval.high == pytest.approx(0.3 + half, abs=0.003)


def test_a_constant_has_no_width() -> None:
    (interval,) = bootstrap_means(np.full((50, 1), 0.5))
    assert (interval.low, interval.mean, interval.high) == (0.5, 0.5, 0.5)


def test_the_same_scores_give_the_same_digits_however_the_draws_are_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    once = bootstrap_means(_SCORES)
    assert bootstrap_means(_SCORES) == once
    assert bootstrap_means(_SCORES, seed=1) != once
    monkeypatch.setattr(bootstrap, "_BLOCK_CELLS", 7_000)
    assert bootstrap_means(_SCORES) == once


def test_the_paired_test_agrees_with_the_t_test() -> None:
    a = _RNG.normal(0.5, 0.2, size=(400, 1))
    b = a + _RNG.normal(0.01, 0.1, size=(400, 1))
    (test,) = paired_bootstrap(a, b)
    theirs = scipy.stats.ttest_rel(b[:, 0], a[:, 0])
    assert test.difference == pytest.approx((b - a).mean())
    assert test.p == pytest.approx(theirs.pvalue, abs=0.02)
    expected = theirs.confidence_interval(0.95)
    assert test.low == pytest.approx(expected.low, abs=0.001)
    assert test.high == pytest.approx(expected.high, abs=0.001)


def test_pairing_sees_what_the_intervals_alone_do_not() -> None:
    a = _RNG.uniform(0, 0.9, size=(200, 1))
    b = a + _RNG.uniform(0, 0.04, size=(200, 1))
    (first,), (second,) = bootstrap_means(a), bootstrap_means(b)
    assert first.high > second.low  # they overlap
    (test,) = paired_bootstrap(a, b)
    assert test.better
    assert not test.worse
    assert test.p < 0.001


def test_turning_the_sides_turns_the_sign() -> None:
    a, b = _SCORES[:, :1], _SCORES[:, 1:2]
    (forth,), (back,) = paired_bootstrap(a, b), paired_bootstrap(b, a)
    assert forth.difference == pytest.approx(-back.difference)
    assert (forth.low, forth.high) == (pytest.approx(-back.high), pytest.approx(-back.low))
    assert forth.p == back.p


def test_equal_evaluations_differ_by_nothing() -> None:
    for test in paired_bootstrap(_SCORES, _SCORES.copy()):
        assert (test.difference, test.low, test.high, test.p) == (0, 0, 0, 1)
        assert not test.worse
        assert not test.better


def test_nothing_cannot_be_resampled_and_different_queries_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="no query"):
        bootstrap_means(np.empty((0, 3)))
    with pytest.raises(ValueError, match="paired"):
        paired_bootstrap(np.ones((3, 1)), np.ones((4, 1)))
