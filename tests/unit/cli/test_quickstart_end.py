"""The quickstart ends at the page, and installs what the page needs."""

import sys
import tomllib

import pytest
from fixtures_cli import pgembed
from packaging.requirements import Requirement

from pgembed.cli.quickstart.plan import PLANS
from pgembed.cli.quickstart.steps import Outcome
from pgembed.cli.quickstart.summary import show_summary
from pgembed.db.sql import resources
from pgembed_code.installation import install_line

PYPROJECT = resources() / "pyproject.toml"


@pytest.mark.parametrize(
    ("is_embedded", "line"),
    [
        (True, "serve` and open http://127.0.0.1:8421/"),
        (False, 'serve --dsn "…"` and open http://127.0.0.1:8421/'),
    ],
)
def test_its_last_line_names_the_page(is_embedded: bool, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_summary(Outcome("shop", PLANS["quick"], is_embedded=is_embedded))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("All of it as a page: run `")
    assert last.endswith(line)


def test_without_torch_it_names_its_own_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    outcome = pgembed("quickstart")
    assert (outcome.code, outcome.stdout) == (1, "")
    assert "The quickstart needs the extra 'quickstart' (there is no torch)" in outcome.stderr
    assert install_line("quickstart") in outcome.stderr


def test_its_extra_includes_what_the_commands_it_names_need() -> None:
    extras = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (quickstart,) = (Requirement(text) for text in extras["quickstart"])
    assert {"embedded", "minilm", "onnx", "serve", "train"} <= quickstart.extras
