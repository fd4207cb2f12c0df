"""What the commands share: text that a terminal cannot obey, durations, JSON, progress for people and for logs."""

import datetime
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pgembed.cli import common
from pgembed.cli.common import print_json, printable, seconds, show_progress

# ---------------------------------------------------------------- printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),  # the one-character form of ESC [
        ("a\u202eb\u2066c\u200f", r"a\u202eb\u2066c\u200f"),  # Trojan Source: CVE-2021-42574
        ("a\0b", r"a\x00b"),
        ("over\rwritten\b", r"over\rwritten\x08"),
        ("\u200bhidden\ufeff", r"\u200bhidden\ufeff"),
        ("\udc80", r"\udc80"),  # a byte of a file name that is not UTF-8
    ],
)
def test_what_a_terminal_would_obey_is_shown_instead(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("text", ["plain", "größer 北京 🦉", "def f():\n\treturn 1", r"already \x1b", ""])
def test_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@given(st.text(st.characters()))
def test_nothing_but_printable_characters_tabs_and_newlines_comes_out(text: str) -> None:
    out = printable(text)
    assert all(character.isprintable() or character in "\n\t" for character in out)
    assert printable(out) == out


# ---------------------------------------------------------------- seconds


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0.0 s"),
        (0.84, "0.8 s"),
        (9.94, "9.9 s"),
        (12.4, "12 s"),
        (60, "1 min 00 s"),
        (185, "3 min 05 s"),
        (119.6, "2 min 00 s"),
        (7325, "122 min 05 s"),
    ],
)
def test_seconds_are_said_as_a_person_says_them(value: float, said: str) -> None:
    assert seconds(value) == said


# ---------------------------------------------------------------- JSON


def test_json_takes_what_a_database_and_numpy_give(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(
        {
            "float32": np.float32(0.5),
            "int64": np.int64(2**40),
            "bool": np.bool_(True),
            "path": Path("a b/c"),
            "date": datetime.date(2026, 1, 31),
            "time": datetime.datetime(2026, 1, 31, 12, 30, tzinfo=datetime.UTC),
            "interval": datetime.timedelta(minutes=1, milliseconds=500),
            "text": "größer \x1b[31m",
            "nothing": None,
        }
    )
    text = capsys.readouterr().out
    assert json.loads(text) == {
        "float32": 0.5,
        "int64": 2**40,
        "bool": True,
        "path": "a b/c",
        "date": "2026-01-31",
        "time": "2026-01-31T12:30:00+00:00",
        "interval": 60.5,
        "text": "größer \x1b[31m",
        "nothing": None,
    }
    assert "\x1b" not in text
    assert text.endswith("}\n")


def test_json_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TypeError, match="object is not JSON"):
        print_json({"what": object()})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_in_every_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    value = {"text": "größer 北京", "path": Path("broken\udc80name")}
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stdout)
    print_json(value)
    stdout.flush()
    assert isinstance(stdout.buffer, io.BytesIO)
    assert json.loads(stdout.buffer.getvalue().decode(encoding)) == {"text": "größer 北京", "path": "broken\udc80name"}


# ---------------------------------------------------------------- progress into a log


class Clock:
    """A clock that goes only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(common.time, "monotonic", clock)
    return clock


def _lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == ""  # progress never mixes with results
    return captured.err.splitlines()


def test_a_log_gets_a_line_every_five_seconds_with_rate_and_remaining_time(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with show_progress().task("Embedding", 4000, "chunks") as task:
        for _ in range(9):
            clock.now += 2.5
            task.advance(250)
    assert _lines(capsys) == [
        "Embedding: 500 of 4,000 chunks, 100 chunks/s, 35 s left",
        "Embedding: 1,000 of 4,000 chunks, 100 chunks/s, 30 s left",
        "Embedding: 1,500 of 4,000 chunks, 100 chunks/s, 25 s left",
        "Embedding: 2,000 of 4,000 chunks, 100 chunks/s, 20 s left",
        "Embedding: 2,250 of 4,000 chunks, 100 chunks/s, 18 s left",  # where it ended
    ]


def test_finished_work_has_no_time_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress().task("Embedding", 100, "chunks") as task:
        clock.now += 4
        task.advance(100)
    assert _lines(capsys) == ["Embedding: 100 of 100 chunks, 25 chunks/s"]


def test_work_of_unknown_size_shows_count_and_rate(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress().task("Calibrating", None, "searches") as task:
        clock.now += 10
        task.advance(123)
        task.note("recall 0.950 at 16")
        clock.now += 2
        task.advance(21)
    assert _lines(capsys) == [
        "Calibrating: 123 searches, 12 searches/s",
        "Calibrating: 144 searches, 12 searches/s, recall 0.950 at 16",
    ]


def test_a_line_is_not_said_twice(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress().task("Embedding", 100, "chunks") as task:
        clock.now += 10
        task.advance(100)
    assert _lines(capsys) == ["Embedding: 100 of 100 chunks, 10 chunks/s"]


def test_slow_work_has_a_rate_too(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress().task("training", 10, "steps") as task:
        clock.now += 4
        task.advance()
    assert _lines(capsys) == ["training: 1 of 10 steps, 0.2 steps/s, 36 s left"]


def test_no_time_at_all_is_no_error(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress().task("Embedding", 10, "chunks") as task:
        task.advance(3)
    (line,) = _lines(capsys)
    assert line.startswith("Embedding: 3 of 10 chunks")


def test_work_that_never_began_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress().task("Embedding", 0, "chunks"):
        pass
    assert _lines(capsys) == []


def test_an_error_passes_through_a_log(clock: Clock) -> None:
    with pytest.raises(ZeroDivisionError), show_progress().task("Embedding", 10, "chunks"):
        raise ZeroDivisionError


def test_names_in_a_log_are_neither_obeyed_nor_markup(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = show_progress()
    progress.say("waiting for \x1b[31m[/red]")
    with progress.task("ingesting \x1b[31m[/red] [slug]", 2, "files") as task:
        task.advance()
        task.note("[/x]\x1b")
    said, line = _lines(capsys)
    assert said == r"waiting for \x1b[31m[/red]"
    assert line.startswith(r"ingesting \x1b[31m[/red] [slug]: 1 of 2 files")
    assert line.endswith(r"[/x]\x1b")


# ---------------------------------------------------------------- progress on a terminal


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal in the place of standard error receives."""
    screen = io.StringIO()
    monkeypatch.setattr(
        common, "errors", Console(file=screen, force_terminal=True, width=160, highlight=False, soft_wrap=True)
    )
    return screen


def _shown(screen: io.StringIO) -> str:
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", screen.getvalue())


def test_a_terminal_gets_bars(terminal: io.StringIO) -> None:
    progress = show_progress()
    progress.say("Building the index")
    with progress.task("Embedding", 10, "chunks") as task:
        task.note("recall 0.95")
        task.advance(4)
        progress.say("in between")
        task.advance(6)
    shown = _shown(terminal)
    assert "Building the index\n" in shown
    assert "in between" in shown
    assert "Embedding" in shown
    assert "10/10" in shown
    assert "recall 0.95" in shown


@pytest.mark.parametrize("total", [None, 0, 3])
def test_bars_stand_every_total(terminal: io.StringIO, total: int | None) -> None:
    with show_progress().task("Calibrating", total, "searches") as task:
        for _ in range(5):  # one more than was announced, too
            task.advance()
    assert f"5/{'?' if total is None else total}" in _shown(terminal)


def test_names_on_a_terminal_are_neither_obeyed_nor_markup(terminal: io.StringIO) -> None:
    progress = show_progress()
    progress.say("waiting for \x1b]0;[/red]")
    with progress.task("ingesting \x1b]0;[/red] [slug]", 2, "files") as task:
        task.note("[/x]\x1b]0;")
        task.advance()
    assert r"waiting for \x1b]0;[/red]" in _shown(terminal)
    assert r"ingesting \x1b]0;[/red] [slug]" in _shown(terminal)
    assert r"[/x]\x1b]0;" in _shown(terminal)
    assert "\x1b]" not in terminal.getvalue()


def test_an_error_passes_through_bars_and_gives_the_cursor_back(terminal: io.StringIO) -> None:
    with pytest.raises(ZeroDivisionError), show_progress().task("Embedding", 10, "chunks"):
        raise ZeroDivisionError
    assert terminal.getvalue().rfind("\x1b[?25h") > terminal.getvalue().rfind("\x1b[?25l") >= 0
