"""Standard output and error as the commands write to them: what cannot be written is told apart from all other errors.

A reader that goes away (`pgembed search … | head`) and a full device raise OSError somewhere inside a command, where it
looks like trouble with a file of ours, or only when the interpreter shuts down, where nobody can explain it.
"""

import errno
import io
import os
import sys
from pathlib import Path
from typing import Any, TextIO


class OutputLost(BaseException):
    """Standard output takes no more. No Exception, so that no handler on the way takes it for an error of its own."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason

    @property
    def reader_left(self) -> bool:
        """Whether whoever read it has seen enough, which is no failure."""
        return self.reason.errno == errno.EPIPE


class _Output(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputLost(error) from error


class _Errors(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:  # there is no other place to say it, and the work is worth more than its progress
            return len(data)


def guard() -> None:
    """Let writing to standard output raise OutputLost, and let writing to standard error never end a command.

    A stream that somebody has replaced (a test, a notebook) is theirs and stays as it is; one that is closed takes all.
    """
    if sys.stdout is None:
        sys.stdout = _nowhere()
    if sys.stderr is None:
        sys.stderr = _nowhere()
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = _guarded(sys.stdout, _Output)
    if sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _guarded(sys.stderr, _Errors)
    if isinstance(sys.stdout, io.TextIOWrapper):  # where the locale knows no ✗, it is escaped and does not end the run
        sys.stdout.reconfigure(errors="backslashreplace")


def _guarded(stream: io.TextIOWrapper, kind: type[io.FileIO]) -> TextIO:
    stream.flush()
    raw = kind(stream.fileno(), "w", closefd=False)
    raw.name = stream.name
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def discard() -> None:
    """Drop what is still to be written to standard output, so that the interpreter does not try again at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
