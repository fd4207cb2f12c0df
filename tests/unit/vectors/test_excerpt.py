import re

from hypothesis import given
from hypothesis import strategies as st

from pgembed.vectors.excerpt import excerpt

_LINES = st.lists(st.text(alphabet=st.sampled_from("abc dé(_\t"), max_size=12), max_size=15)


def _words(text: str) -> set[str]:
    return {word for word in re.findall(r"[a-z]+", text) if len(word) >= 3}


@given(_LINES, st.text(alphabet=st.sampled_from("abc d"), max_size=20), st.integers(1, 6))
def test_no_other_window_shares_more_words_and_of_equals_the_first_is_shown(
    content: list[str], query: str, lines: int
) -> None:
    content = [*content, "end"]
    start, shown = excerpt("\n".join(content), query, lines)

    def shared(at: int) -> int:
        return len(_words(query) & set().union(set(), *map(_words, content[at : at + lines])))

    everywhere = [shared(at) for at in range(max(1, len(content) - lines + 1))]
    assert shown.split("\n") == content[start : start + lines]
    assert everywhere.index(max(everywhere)) == start


def test_the_lines_that_say_why_are_shown_with_their_offset() -> None:
    content = "\n".join(["def f():", *(f"    step({n})" for n in range(20)), "    retryWithBackoff()", "    end()"])
    assert excerpt(content, "Retry a request with BACKOFF", lines=2) == (20, "    step(19)\n    retryWithBackoff()")
    assert excerpt(content, "nothing of this", lines=2) == (0, "def f():\n    step(0)")


def test_short_words_do_not_count() -> None:
    assert excerpt("first\nif a is to be of it", "a is to be of it", lines=1) == (0, "first")


def test_a_short_chunk_is_shown_whole() -> None:
    assert excerpt("one\ntwo\n", "two") == (0, "one\ntwo")
    assert excerpt("", "two") == (0, "")


def test_only_a_line_feed_ends_a_line_as_in_the_line_numbers_of_a_file() -> None:
    # a form feed parts the pages of a source file; other characters too end a line for Python's splitlines alone
    for character in "\f\v\x1c\x85\u2028":
        content = f"first\n{character}\nsecond {character} second\ntarget word\n"
        assert excerpt(content, "target", lines=1) == (3, "target word")
    assert excerpt("first\r\ntarget word\r\n", "target", lines=1) == (1, "target word")
