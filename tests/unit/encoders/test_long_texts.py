"""Windows of long texts: where they are cut, and what their pooled vector is."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pgembed.encoders.spec import EncoderSpec, TowerSpec
from pgembed.encoders.windows import WindowPool, cut_windows
from pgembed.errors import EncoderError


@given(st.integers(0, 500), st.integers(3, 80), st.integers(0, 2))
def test_windows_keep_to_the_limit_and_hold_every_token_in_order(length: int, limit: int, special: int) -> None:
    around = special + bool(special)
    assume(limit > around)
    content = list(range(1000, 1000 + length))
    windows = cut_windows(content, prompt=[], before=[1] * special, after=[2] if special else [], limit=limit)
    pieces = [window.ids[special : len(window.ids) - bool(special)] for window in windows]
    assert all(len(window.ids) <= limit for window in windows)
    assert [window.tokens for window in windows] == [len(piece) for piece in pieces]
    assert sorted({token for piece in pieces for token in piece}) == content
    assert all(piece == list(range(piece[0], piece[0] + len(piece))) for piece in pieces if piece)
    # none is wholly inside another, and each but the first repeats an eighth of the one before
    overlap = (limit - around) // 8
    for one, following in itertools.pairwise(pieces):
        assert one[len(one) - overlap :] == following[:overlap]
        assert following[-1] > one[-1]


def test_a_prompt_that_leaves_no_room_is_an_error() -> None:
    with pytest.raises(EncoderError, match="6 tokens leaves no room in the 8"):
        cut_windows([9] * 20, prompt=[5] * 6, before=[1], after=[2], limit=8)


def _spec(*towers: tuple[int, float]) -> EncoderSpec:
    return EncoderSpec(
        "e",
        tuple(
            TowerSpec(str(n), "folder:/", 8, slot, "mean", causal=False, max_tokens=16, weight=weight)
            for n, (slot, weight) in enumerate(towers)
        ),
    )


def _unit(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    vectors = np.zeros((count, width))
    vectors[:, :8] = rng.standard_normal((count, 8))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_pooling_is_the_weighted_mean_of_each_tower_joined_as_two_towers_are() -> None:
    """Independent: each tower's mean is made first and then joined, where the pool sees joined vectors alone."""
    rng = np.random.default_rng(0)
    spec = _spec((1536, 1.0), (1024, 0.6))
    first, second = _unit(rng, 3, 1536), _unit(rng, 2, 1024)
    tokens_first, tokens_second = np.array([10, 10, 4]), np.array([14, 3])
    pool = WindowPool(spec, [7])
    joined = np.hypot(1.0, 0.6)
    for n, tokens in enumerate([(10, 14), (10, 3), (4, 0)]):
        vector = np.concatenate([first[n], 0.6 * second[min(n, 1)]]) / joined
        pool.add(7, vector.astype(np.float32), tokens)
    mean_first, mean_second = tokens_first @ first / 24, tokens_second @ second / 17
    expected = np.concatenate(
        [mean_first / np.linalg.norm(mean_first), 0.6 * mean_second / np.linalg.norm(mean_second)]
    )
    (found,) = pool.pooled()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found), 1, atol=1e-6)


def test_windows_that_cancel_out_or_are_not_finite_give_no_usable_vector_and_harm_no_other() -> None:
    rng = np.random.default_rng(1)
    (vector,) = _unit(rng, 1, 2560).astype(np.float32)
    pool = WindowPool(_spec((2560, 1.0)), [0, 1, 2])
    pool.add(0, vector, [3])
    pool.add(0, -vector, [3])
    pool.add(1, vector, [3])
    pool.add(1, np.full(2560, np.nan, dtype=np.float32), [3])
    pool.add(2, vector, [3])
    found = pool.pooled()
    assert np.isnan(found[:2]).any(axis=1).all()
    np.testing.assert_allclose(found[2], vector, atol=1e-7)
