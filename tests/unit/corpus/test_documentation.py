"""The text of docstrings and comments."""

import pytest

from pgembed.corpus.documentation import comment_text, literal_docstring


@pytest.mark.parametrize(
    ("comment", "text"),
    [
        ("/** One line. */", "One line."),
        ("/**\n * Two\n * lines.\n */", "Two\nlines."),
        ("/**\n   Without stars.\n     Indented.\n*/", "Without stars.\n  Indented."),
        ("/// <summary>\n/// Gives <c>x</c>.\n/// </summary>", "Gives x."),
        ("// Go says\n//\n//\tcode", "Go says\n\ncode"),
        ("# ------\n# Section\n# ------", "Section"),
        ("//! Doxygen", "Doxygen"),
        ("///< trailing", "trailing"),
        ("//go:generate x\n// Does it.", "Does it."),
        ("/* eslint-disable */", ""),
        ("/* a * b */", "a * b"),
        ("/**\n * * point\n */", "* point"),
    ],
)
def test_comments_lose_their_marks_and_keep_their_words(comment: str, text: str) -> None:
    assert comment_text(comment) == text


@pytest.mark.parametrize(
    ("literal", "docstring"),
    [
        ('"""One."""', "One."),
        ("'''One.\n\n      Two.\n    '''", "One.\n\nTwo."),
        ('r"\\d"', "\\d"),
        ('"tab\\there"', "tab     here"),  # cleandoc expands it
        ('"a" "b"', "ab"),
        ('"bad \\d escape"', "bad \\d escape"),
        ('f"{x}"', None),
        ('b"x"', None),
        ('"  "', None),
    ],
)
def test_literals(literal: str, docstring: str | None) -> None:
    assert literal_docstring(literal) == docstring
