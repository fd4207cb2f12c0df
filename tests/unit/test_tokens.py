"""Token sets: where identifiers split, and what holds for any text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgembed.tokens import MAX_TOKEN_LENGTH, tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HTTPServer_v2", {"http", "server", "v"}),
        ("getHTTPResponse", {"get", "http", "response"}),
        ("parse_xml_2json", {"parse", "xml", "json"}),
        ("MAX_SIZE = maxSize", {"max", "size"}),
        ("x1y2 _private __dunder__", {"x", "y", "private", "dunder"}),
        ("aB", {"a", "b"}),
        ("ABCDef", {"abc", "def"}),
        ("ImageURLs", {"image", "ur", "ls"}),  # what the rule says of an acronym's plural
        ("straße", {"straße"}),
        ("ÉcoleNormale parseÉtat", {"école", "normale", "parse", "état"}),
        ("ИмяФайла", {"имя", "файла"}),
        ("変数 = 値", {"変数", "値"}),
        ("e\u0301te\u0301", {"été"}),  # typed as letter and accent
        ("12 34.5 + - () ''", set()),
        ("", set()),
    ],
)
def test_identifiers_split_at_case_digits_and_underscores(text: str, expected: set[str]) -> None:
    assert tokens(text) == expected


@given(st.text())
def test_any_text_gives_lower_case_letters_of_bounded_length(text: str) -> None:
    for token in tokens(text):
        assert token == token.lower()
        assert token.isalpha()
        assert 0 < len(token) <= MAX_TOKEN_LENGTH


@given(st.text())
def test_tokens_of_tokens_are_the_same(text: str) -> None:
    once = tokens(text)
    assert tokens(" ".join(once)) == once


@given(st.lists(st.from_regex(r"[a-z]{1,8}", fullmatch=True), min_size=1))
def test_every_way_to_write_a_name_gives_the_same_tokens(words: list[str]) -> None:
    snake = "_".join(words)
    screaming = snake.upper()
    assert tokens(snake) == tokens(screaming) == tokens("1".join(words)) == set(words)


@given(st.text(), st.text())
def test_text_apart_adds_up(left: str, right: str) -> None:
    assert tokens(f"{left}\n{right}") == tokens(left) | tokens(right)
