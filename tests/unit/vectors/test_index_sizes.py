import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgembed.vectors.index import build_memory, lists_for


@pytest.mark.parametrize(("rows", "lists"), [(0, 1), (1, 1), (999, 1), (1000, 32), (20_000, 141), (1_000_000, 1000)])
def test_lists_are_the_square_root_of_the_rows_but_one_for_small_tables(rows: int, lists: int) -> None:
    assert lists_for(rows) == lists


@given(st.integers(0, 10**11))
def test_lists_are_within_what_pgvector_takes_and_never_fewer_for_more_rows(rows: int) -> None:
    assert 1 <= lists_for(rows) <= 32768
    assert lists_for(rows) <= lists_for(rows + 1)
    if 1000 <= rows <= 32768**2:
        assert abs(lists_for(rows) - math.sqrt(rows)) <= 0.5


def test_memory_at_fifty_thousand_rows_is_the_measured_one() -> None:
    assert round(build_memory(lists_for(50_000)) / 2**20) == 69


@given(st.integers(1, 32767))
def test_more_lists_need_more_memory(lists: int) -> None:
    assert build_memory(lists) < build_memory(lists + 1)
