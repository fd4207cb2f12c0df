import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pgembed.encoders.batching import length_batches, pad


@given(st.lists(st.integers(0, 300), max_size=200), st.integers(1, 4096))
def test_each_text_is_in_one_batch_and_each_batch_in_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(length_batches(lengths, token_budget=budget))
    assert sorted(n for batch in batches for n in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[n] for n in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget


def test_padding_stays_under_a_tenth() -> None:
    # lengths as of code: many short functions, a long tail, cut at 256
    lengths = np.minimum(np.random.default_rng(0).lognormal(4.6, 0.9, 512).astype(int) + 3, 256)
    padded = sum(len(batch) * lengths[batch].max() for batch in length_batches(lengths.tolist(), token_budget=2048))
    assert 1 - lengths.sum() / padded < 0.1
    in_the_order_given = sum(64 * lengths[n : n + 64].max() for n in range(0, 512, 64))
    assert 1 - lengths.sum() / in_the_order_given > 0.4


def test_padding_is_on_the_right_and_masked() -> None:
    ids, mask = pad([[5, 6, 7], [8]])
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert ids.dtype == mask.dtype == np.int64
