"""A full disk of this machine is told in a line with a remedy, whoever says it; other errors keep their traceback."""

import errno
import os

import pytest
import typer
from fixtures_cli import pgembed

from pgembed.cli import app as module


class SafetensorError(Exception):
    """As the library has it: no OSError, its text from Rust."""


def _raised_inside(error: Exception) -> Exception:
    outer = RuntimeError("the weights were not written")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/models/model.onnx"),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/models/model.onnx"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        _raised_inside(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
    ],
)
def test_it_is_told_with_a_remedy(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = typer.Typer(pretty_exceptions_enable=False)

    @broken.command()
    def command() -> None:
        raise error

    monkeypatch.setattr(module, "app", broken)
    monkeypatch.setenv("PGEMBED_HOME", "/somewhere")
    outcome = pgembed()
    assert outcome.code == 1
    assert "Error: This machine's disk is full: " in outcome.stderr
    assert "Free space there (/somewhere), then run the same command again: it goes on." in outcome.stderr


def test_another_error_of_the_system_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = typer.Typer(pretty_exceptions_enable=False)

    @broken.command()
    def command() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(module, "app", broken)
    with pytest.raises(OSError, match="Input/output error"):
        pgembed()
