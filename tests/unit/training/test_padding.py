"""How a step's texts are cut into groups of like length."""

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from pgembed.training.encode import _GROUP_COST, least_padding

Runs = list[tuple[int, int]]


def cost(runs: Runs, lengths: list[int]) -> int:
    return sum((end - start) * lengths[end - 1] + _GROUP_COST for start, end in runs)


def every_way(count: int, at_most: int) -> list[Runs]:
    found = []
    for inner in (c for r in range(count) for c in combinations(range(1, count), r)):
        bounds = [0, *inner, count]
        runs = list(pairwise(bounds))
        if max(end - start for start, end in runs) <= at_most:
            found.append(runs)
    return found


@given(st.lists(st.integers(1, 600), min_size=1, max_size=9).map(sorted), st.integers(1, 10))
def test_no_other_way_to_cut_costs_less(lengths: list[int], at_most: int) -> None:
    runs = least_padding(lengths, at_most=at_most)
    assert [n for start, end in runs for n in range(start, end)] == list(range(len(lengths)))
    assert all(end - start <= at_most for start, end in runs)
    assert cost(runs, lengths) == min(cost(other, lengths) for other in every_way(len(lengths), at_most))


def test_no_text_is_no_group() -> None:
    assert least_padding([], at_most=4) == []
