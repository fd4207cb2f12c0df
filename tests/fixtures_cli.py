"""The command as a person runs it: with `main`, which turns errors into exit codes, and not only the application."""

import contextlib
import io
import sys
from dataclasses import dataclass
from unittest.mock import patch

from pgembed.cli.app import main


@dataclass(frozen=True)
class Outcome:
    """What a person or a script sees."""

    code: int
    stdout: str
    stderr: str


def pgembed(*arguments: str) -> Outcome:
    """Run `pgembed` with these arguments in this process; an error that `main` lets through is raised."""
    stdout, stderr = io.StringIO(), io.StringIO()
    code = 0
    with (
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        patch.object(sys, "argv", ["pgembed", *arguments]),
    ):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Outcome(code, stdout.getvalue(), stderr.getvalue())
