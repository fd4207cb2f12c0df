"""Code is cut and classed without loss of a character that is kept."""

import pytest

from pgembed.serving.code import show

SOURCES = {
    "python": 'def f(a):\n    """Say\n    so."""\n    return a + 1  # done\n',
    "javascript": "const x = `a\nb`;\r\n\r\nfunction f() {}\n",
    "python with a lone carriage return": "a = 1\rb = 2\nc = '\x0c'\n",
    "nosuchlanguage": "a\n\nb",
}


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_is_lost_and_lines_stay_lines(name: str) -> None:
    text = SOURCES[name]
    shown = show(text, name.split()[0], first_line=5, most_lines=100)
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    assert ["".join(piece for _, piece in line) for line in shown.lines] == lines
    assert (shown.first_line, shown.more_lines) == (5, 0)


def test_a_token_over_several_lines_keeps_its_class() -> None:
    shown = show(SOURCES["python"], "python", first_line=1, most_lines=100)
    assert shown.lines[1] == (("", "    "), ("s", '"""Say'))
    assert shown.lines[2] == (("s", '    so."""'),)


def test_too_many_lines_and_too_long_ones_are_cut_with_a_note() -> None:
    shown = show("\n".join(["x" * 1500, *"abcdef"]), "python", first_line=1, most_lines=3)
    assert len(shown.lines) == 3
    assert shown.more_lines == 4
    assert shown.lines[0] == (("", "x" * 400), ("cut", "1,100 more characters"))


def test_a_huge_text_is_not_highlighted() -> None:
    shown = show("def f(): pass\n" * 20_000, "python", first_line=1, most_lines=20_000)
    assert shown.lines[7] == (("", "def f(): pass"),)
