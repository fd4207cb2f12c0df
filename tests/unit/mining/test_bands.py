"""MinHash bands: the S-curve against a simulation, and bands that keep what they promise."""

import random
from math import isclose, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgembed.mining.bands import LEAST_RECALL, MOST_COPIES_MISSED, Bands, choose_bands

shapes = st.builds(Bands, st.integers(1, 16), st.integers(1, 300))
jaccards = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)


@given(bands=shapes, jaccard=jaccards)
def test_recall_is_the_s_curve(bands: Bands, jaccard: float) -> None:
    assert isclose(bands.recall(jaccard), 1 - (1 - jaccard**bands.rows) ** bands.bands, abs_tol=1e-12)
    assert isclose(bands.recall(jaccard) + bands.miss(jaccard), 1)


@given(bands=shapes, low=jaccards, high=jaccards)
def test_more_alike_more_bands_and_fewer_rows_find_more(bands: Bands, low: float, high: float) -> None:
    low, high = sorted((low, high))
    assert bands.recall(low) <= bands.recall(high) + 1e-12
    assert bands.recall(low) <= Bands(bands.rows, bands.bands + 1).recall(low) + 1e-12
    assert Bands(bands.rows + 1, bands.bands).recall(low) <= bands.recall(low) + 1e-12
    assert (bands.recall(0), bands.recall(1)) == (0, 1)


@given(pair=st.tuples(st.integers(100, 1000), st.integers(100, 1000)).map(sorted))
def test_what_is_chosen_keeps_both_promises_and_wastes_no_band(pair: list[int]) -> None:
    min_jaccard, near_duplicate = (thousandths / 1000 for thousandths in pair)

    def keeps(bands: Bands) -> bool:
        return (
            bands.recall(min_jaccard) >= LEAST_RECALL - 1e-9
            and bands.miss(near_duplicate) <= MOST_COPIES_MISSED * (1 + 1e-6)
        )  # fmt: skip

    chosen = choose_bands(min_jaccard, near_duplicate)
    assert keeps(chosen)
    assert chosen.rows * chosen.bands <= 256
    assert chosen.bands == 1 or not keeps(Bands(chosen.rows, chosen.bands - 1))


@pytest.mark.parametrize(("min_jaccard", "expected"), [(0.5, Bands(4, 47)), (0.7, Bands(6, 31)), (0.8, Bands(6, 31))])
def test_the_bands_of_common_thresholds(min_jaccard: float, expected: Bands) -> None:
    # worked out by hand: 0.95 at 0.5 takes ln 0.05 / ln(1 − 0.5⁴) = 46.4 bands of 4;
    # 10⁻⁴ missed at 0.8 takes ln 10⁻⁴ / ln(1 − 0.8⁶) = 30.2 bands of 6
    assert choose_bands(min_jaccard, 0.8) == expected


@pytest.mark.parametrize(("common", "own"), [(10, 5), (12, 3), (14, 1)])
def test_simulated_minima_meet_the_curve(common: int, own: int) -> None:
    """Sets with known Jaccard under true random orders of their union, which no hash function has a part in."""
    chance = random.Random(common)  # noqa: S311 - a repeatable simulation
    bands, trials = Bands(3, 5), 1500
    union = list(range(common + 2 * own))
    found = 0
    for _ in range(trials):
        found += any(all(_agree(chance, union, common, own) for _ in range(bands.rows)) for _ in range(bands.bands))
    expected = bands.recall(common / len(union))
    assert abs(found / trials - expected) < 4 * sqrt(expected * (1 - expected) / trials)


def _agree(chance: random.Random, union: list[int], common: int, own: int) -> bool:
    """Whether two sets have the same least element in a random order: whether the union's least is in both."""
    order = {member: place for place, member in enumerate(chance.sample(union, len(union)))}
    left = min(range(common + own), key=order.__getitem__)
    right = min([*range(common), *range(common + own, len(union))], key=order.__getitem__)
    return left == right
