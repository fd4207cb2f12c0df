"""What other distributions register: listed without running their code, and blamed by name when it fails."""

import re
import sys
from pathlib import Path

import pytest
from fixtures_plugins import Register

from pgembed.errors import PluginError
from pgembed.plugins import plugins

GROUP = "pgembed.tests"


def test_listing_runs_none_of_a_strangers_code(register: Register) -> None:
    register("loud", GROUP, {"b": "loud_b:X", "a": "loud_a:X"}, version="2.5", loud_a="raise SystemExit('imported')")
    found = plugins(GROUP)
    assert [(plugin.name, plugin.value, plugin.origin) for plugin in found] == [
        ("a", "loud_a:X", "loud 2.5"), ("b", "loud_b:X", "loud 2.5"),
    ]  # fmt: skip
    assert "loud_a" not in sys.modules
    assert plugins("pgembed.nobody") == []


def test_what_an_entry_names_is_loaded(register: Register) -> None:
    register("good", GROUP, {"x": "good_module:VALUE"}, good_module="VALUE = 42\n")
    assert plugins(GROUP)[0].load() == 42


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import there_is_no_such_module", "ModuleNotFoundError: No module named 'there_is_no_such_module'"),
        ("def X(:", "SyntaxError"),
        ("Y = 1", "AttributeError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_broken_one_is_named_with_its_distribution_and_a_remedy(register: Register, source: str, told: str) -> None:
    register("some-dist", GROUP, {"x": "some_module:X"}, version="0.3", some_module=source)
    with pytest.raises(PluginError) as caught:
        plugins(GROUP)[0].load()
    message = str(caught.value)
    for part in ("some-dist 0.3", "'x'", "some_module:X", GROUP, told, "pip uninstall some-dist"):
        assert part in message
    sys.modules.pop("some_module", None)


ROOT = Path(__file__).parents[2]


def test_the_documentation_prints_the_example_as_it_is() -> None:
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:toml|python)\n(.*?)```", text, re.DOTALL)
    example = ROOT / "tests" / "example_plugin"
    sources = [path.read_text(encoding="utf-8") for path in (example / "pyproject.toml", *example.rglob("*.py"))]
    assert len(blocks) == 3
    for block in blocks:
        assert any(block in source for source in sources), block
