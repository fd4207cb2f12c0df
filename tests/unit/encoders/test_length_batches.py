import argparse

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgembed.encoders.batching import MOST_PADDING, length_batches, pad


@given(st.lists(st.integers(0, 300), max_size=200), st.integers(1, 4096))
def test_each_text_is_in_one_batch_and_each_batch_in_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(length_batches(lengths, token_budget=budget))
    assert sorted(n for batch in batches for n in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[n] for n in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget


@given(st.lists(st.integers(0, 300), max_size=200), st.integers(1, 70_000))
def test_no_batch_is_more_than_a_tenth_padding_whatever_the_lengths(lengths: list[int], budget: int) -> None:
    for batch in length_batches(lengths, token_budget=budget):
        _, mask = pad([[7] * lengths[n] for n in batch])
        assert (mask == 0).sum() <= MOST_PADDING * mask.size


@pytest.fixture(scope="module")
def code_lengths() -> list[int]:
    """Tokens of real functions, as MiniLM reads them: many short ones, a long tail, cut at 256."""
    import ast
    import inspect
    import shutil
    import subprocess

    from pgembed.encoders.presets import preset
    from pgembed.encoders.tokenizer import Tokenizer
    from pgembed.encoders.weights import locate

    texts = []
    for module in (argparse, ast, inspect, shutil, subprocess):
        source = inspect.getsource(module)
        functions = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
        texts += [ast.get_source_segment(source, node) or "" for node in functions]
    tokenizer = Tokenizer(locate(preset("minilm").towers[0]) / "tokenizer.json", max_tokens=256)
    return [len(ids) for ids in tokenizer.encode(texts)]


@given(seed=st.integers(0, 10**6), count=st.integers(64, 512), budget=st.sampled_from([512, 2048, 65_536]))
def test_of_real_code_little_is_padding_and_batches_are_few(
    code_lengths: list[int], seed: int, count: int, budget: int
) -> None:
    """A tenth at most by construction; this says that it is not bought by batches of one text.

    At the budget of a CPU it is the budget that ends most batches, and less is padding.
    """
    lengths = np.random.default_rng(seed).choice(code_lengths, count).tolist()
    batches = list(length_batches(lengths, token_budget=budget))
    padded = sum(len(batch) * max(lengths[n] for n in batch) for batch in batches)
    assert 1 - sum(lengths) / padded < (0.06 if budget == 512 and count >= 256 else MOST_PADDING)
    # what fills the budget, and beside that as many batches as a tenth needs from the longest to the shortest
    assert len(batches) <= 2 * sum(lengths) / budget + 40
    in_the_order_given = sum(64 * max(lengths[n : n + 64]) for n in range(0, len(lengths), 64))
    assert 1 - sum(lengths) / in_the_order_given > 0.3


def test_padding_is_on_the_right_and_masked() -> None:
    ids, mask = pad([[5, 6, 7], [8]])
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert ids.dtype == mask.dtype == np.int64
