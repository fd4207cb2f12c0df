"""Encoders by name: built in and registered by others, and what a broken or a second one does to them."""

import sys
from collections.abc import Iterator

import pytest
from fixtures_plugins import Register

from pgembed.encoders.catalogue import GROUP, all_encoders, find_encoder, no_such_encoder
from pgembed.encoders.presets import PRESETS
from pgembed.errors import PluginError

SPEC = """
from pgembed.encoders.spec import EncoderSpec, TowerSpec

def make(name, dimensions=8):
    tower = TowerSpec(name=name, weights="folder:/nowhere", dimensions=dimensions, slot=2560, pooling="mean",
                      causal=False, max_tokens=16)
    return EncoderSpec(name, (tower,))

"""


@pytest.fixture(autouse=True)
def _forget_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("stranger"):
            del sys.modules[name]


def _origins() -> dict[str, str]:
    return {known.spec.name: str(known.origin) for known in all_encoders().encoders}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("make('a')", {"a"}),
        ("lambda: make('a')", {"a"}),
        ("[make('a'), make('b')]", {"a", "b"}),
        ("{'a': make('a'), 'b': make('b')}", {"a", "b"}),
        ("lambda: (make(n) for n in 'abc')", {"a", "b", "c"}),
    ],
)
def test_an_entry_gives_one_several_or_what_returns_them(register: Register, given: str, names: set[str]) -> None:
    register("giver", GROUP, {"entry": "stranger_a:X"}, version="3.1", stranger_a=f"{SPEC}X = {given}\n")
    assert _origins() == {**dict.fromkeys(PRESETS, "built-in"), **dict.fromkeys(names, "giver 3.1")}
    assert all_encoders().broken == []
    known = find_encoder("a")
    assert known is not None
    assert known.spec.towers[0].dimensions == 8
    assert find_encoder("nobody") is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("make('a', dimensions=9999)", "9999 dimensions do not fit"),
        ("lambda: 1 / 0", "ZeroDivisionError"),
        ("'minilm'", "not an EncoderSpec"),
        ("[]", "not an EncoderSpec"),
        ("42", "TypeError"),
        ("{'b': make('a')}", "'b' an encoder that calls itself 'a'"),
        ("lambda: __import__('sys').exit('bye')", "SystemExit: bye"),
    ],
)
def test_a_broken_one_is_listed_with_its_reason_and_bars_its_own_name_only(
    register: Register, given: str, told: str
) -> None:
    register("breaker", GROUP, {"mine": "stranger_b:X"}, version="0.1", stranger_b=f"{SPEC}X = {given}\n")
    register("good", GROUP, {"fine": "stranger_c:X"}, stranger_c=f"{SPEC}X = make('fine')\n")
    found = all_encoders()
    assert set(_origins()) == {*PRESETS, "fine"}
    (broken,) = found.broken
    assert (broken.name, str(broken.origin)) == ("mine", "breaker 0.1")
    assert told in str(broken.error)
    assert find_encoder("fine") is not None
    assert find_encoder("minilm") is not None
    with pytest.raises(PluginError, match=r"breaker 0\.1"):
        find_encoder("mine")
    # who asks for something unknown is told that more might be there
    assert find_encoder("typo") is None
    assert "breaker 0.1" in str(no_such_encoder("typo"))


def test_two_distributions_with_one_name_are_both_named_and_neither_is_taken(register: Register) -> None:
    register("one", GROUP, {"e1": "stranger_d:X"}, version="1.1", stranger_d=f"{SPEC}X = make('same')\n")
    register("two", GROUP, {"e2": "stranger_e:X"}, version="2.2", stranger_e=f"{SPEC}X = [make('same'), make('own')]\n")
    register("three", GROUP, {"e3": "stranger_f:X"}, version="3.3", stranger_f=f"{SPEC}X = make('same')\n")
    assert set(_origins()) == {*PRESETS, "own"}
    with pytest.raises(PluginError) as caught:
        find_encoder("same")
    for part in ("'same'", "one 1.1", "three 3.3"):
        assert part in str(caught.value)
    everything = " ".join(str(entry.error) for entry in all_encoders().broken)
    assert all(origin in everything for origin in ("one 1.1", "two 2.2", "three 3.3"))
    assert find_encoder("own") is not None


def test_a_built_in_name_cannot_be_taken_nor_silently_kept(register: Register) -> None:
    register("thief", GROUP, {"x": "stranger_g:X"}, stranger_g=f"{SPEC}X = make('minilm')\n")
    assert _origins()["minilm"] == "built-in"
    with pytest.raises(PluginError, match=r"pgembed-code.*thief 1\.0"):
        find_encoder("minilm")


def test_a_broken_entry_that_is_called_like_a_built_in_one_does_not_bar_it(register: Register) -> None:
    register("unlucky", GROUP, {"minilm": "stranger_h:X"}, stranger_h="raise ImportError('no torch')\n")
    known = find_encoder("minilm")
    assert known is not None
    assert known.origin.kind == "built-in"
