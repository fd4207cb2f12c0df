"""Windows of lines: nothing is lost, neighbours overlap, lines are counted right."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pgembed.corpus.chunk import MAX_CHUNK_CHARACTERS
from pgembed.corpus.windows import WINDOW_LINES, WINDOW_OVERLAP, windows


@given(st.lists(st.sampled_from(["", "  ", "a", "b = 1", "}"]), max_size=300))
def test_every_line_that_says_something_is_in_a_window(lines: list[str]) -> None:
    seen: set[int] = set()
    for window in windows("\n".join(lines), "text", first_line=1):
        assert window.content == "\n".join(lines[window.start_line - 1 : window.end_line])
        assert window.content.strip()
        assert window.end_line - window.start_line < WINDOW_LINES
        seen.update(range(window.start_line, window.end_line + 1))
    assert {number for number, line in enumerate(lines, 1) if line.strip()} <= seen


def test_neighbours_overlap() -> None:
    found = list(windows("\n".join(map(str, range(200))), "text", first_line=11))
    assert [window.start_line for window in found] == [11, 61, 111, 161]
    for before, after in pairwise(found):
        assert before.end_line - after.start_line + 1 == WINDOW_OVERLAP


def test_a_line_without_end_is_cut_and_nothing_of_it_is_lost() -> None:
    text = "x" * 45_000
    found = list(windows(f"first\n{text}\nlast", "text"))
    assert "".join(window.content for window in found) == f"first\n{text}\nlast"
    assert all(len(window.content) <= MAX_CHUNK_CHARACTERS for window in found)
    assert [(window.start_line, window.end_line) for window in found] == [(1, 2), (2, 2), (2, 3)]


def test_a_blank_text_has_no_window() -> None:
    assert list(windows("\n \n\n", "text")) == []
