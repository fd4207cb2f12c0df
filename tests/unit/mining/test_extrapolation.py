"""From a sample's rows and seconds to those of all chunks."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgembed.mining.bands import Bands
from pgembed.mining.estimate import Sampled, extrapolate

BANDS = Bands(4, 47)
counts = st.integers(0, 10**7)
times = st.floats(0, 100)
samples = st.builds(
    Sampled, chunks=st.integers(1, 10**7), sampled=st.integers(0, 8000), prefix_rows=counts, joined=counts,
    candidates=counts, pairs=counts, signed=st.integers(0, 2000), bucket_joined=counts,
    prepare_s=times, prefix_s=times, join_s=times, verify_s=times, sign_s=times, bucket_s=times,
)  # fmt: skip


@given(sampled=samples)
def test_whatever_the_noise_nothing_is_negative_or_lost(sampled: Sampled) -> None:
    estimate = extrapolate(sampled, 0.5, BANDS, 0.8)
    assert min(estimate.seconds, estimate.approximate_seconds) >= 0
    assert str(estimate)


@given(sampled=samples)
def test_a_sample_of_all_is_the_corpus(sampled: Sampled) -> None:
    # a set has a prefix: the time of a join without a row would belong to nothing
    prefix_rows = max(sampled.prefix_rows, 1)
    whole = replace(sampled, chunks=4000, sampled=4000, signed=4000, prefix_rows=prefix_rows)
    estimate = extrapolate(whole, 0.5, BANDS, 0.8)
    assert (estimate.joined, estimate.candidates, estimate.pairs) == (whole.joined, whole.candidates, whole.pairs)
    assert estimate.approximate_joined == whole.bucket_joined
    # the parts of the time are those that were measured, however the join's is split between rows and pairs of rows
    assert estimate.seconds == pytest.approx(whole.prepare_s + whole.prefix_s + whole.join_s + whole.verify_s, abs=1e-6)


def test_pairs_grow_with_the_square_and_preparation_in_proportion() -> None:
    sampled = Sampled(
        chunks=10_000, sampled=1_000, prefix_rows=10_000, joined=1_000_000, candidates=500, pairs=100,
        signed=250, bucket_joined=2_000, prepare_s=1.0, prefix_s=0.5, join_s=0.3, verify_s=0.2, sign_s=2.0,
        bucket_s=0.1,
    )  # fmt: skip
    estimate = extrapolate(sampled, 0.5, BANDS, 0.8)
    square = 10_000 * 9_999 / (1_000 * 999)
    assert (estimate.joined, estimate.pairs) == (round(square * 1_000_000), round(square * 100))
    # 0.3 s for a million pairs of rows and ten thousand rows, of which one takes as long as six and a half pairs
    prefixes = 0.3 * 65_000 / 1_065_000
    assert estimate.seconds == pytest.approx(10 * 1.0 + 10 * (0.5 + prefixes) + square * (0.3 - prefixes + 0.2))
    # beyond one slice, the prefixes of possible partners are read again
    larger = extrapolate(replace(sampled, chunks=100_000), 0.5, BANDS, 0.8)
    square = 100_000 * 99_999 / (1_000 * 999)
    again = 1.25
    assert larger.seconds == pytest.approx(100 * 1.0 + 100 * (0.5 + prefixes) * again + square * (0.3 - prefixes + 0.2))
    assert estimate.copy_miss == pytest.approx((1 - 0.8**4) ** 47)
    assert "the approximate path about" in str(estimate)
