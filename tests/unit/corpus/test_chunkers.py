"""Third parties' chunkers: each file ending and each name has one owner."""

import sys
from collections.abc import Iterator

import pytest
from fixtures_plugins import Register

from pgembed.corpus import chunkers
from pgembed.corpus.chunkers import choose, is_current
from pgembed.errors import PluginError

GROUP = chunkers.GROUP


@pytest.fixture(autouse=True)
def _forget_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("stranger"):
            del sys.modules[name]


def _chunker(name: str, extensions: object, base: str = "") -> str:
    return (
        f"class Chunker{base}:\n    name = {name!r}\n    extensions = {extensions!r}\n"
        "    def chunk(self, text, language): ...\n"
    )


def test_a_file_goes_to_the_chunker_of_its_ending_whatever_its_case(register: Register) -> None:
    register("cobol", GROUP, {"cobol": "stranger_a:Chunker"}, stranger_a=_chunker("cobol/1", {".cob": "cobol"}))
    register("obj", GROUP, {"obj": "stranger_b:CHUNKER"},
             stranger_b=_chunker("tcl/3", {".tcl": "tcl", ".tk": "tcl"}) + "CHUNKER = Chunker()\n")  # fmt: skip
    assert [(c.name, language) for c, language in (choose("a/B.COB", ""), choose("x.tk", ""))] == [
        ("cobol/1", "cobol"), ("tcl/3", "tcl"),
    ]  # fmt: skip
    assert choose("x.py", "")[0].name.startswith("definitions/")
    assert is_current("x.cob", "cobol", "cobol/1")
    assert not is_current("x.cob", "cobol", "windows/2")


@pytest.mark.parametrize(
    ("first", "second", "claim"),
    [
        (("a/1", {".cob": "cobol"}), ("b/1", {".cob": "cobol"}), "file ending .cob"),
        (("a/1", {".cob": "cobol"}), ("a/1", {".cbl": "cobol"}), "name 'a/1'"),
    ],
)
def test_two_that_want_the_same_are_both_named(
    register: Register, first: tuple[str, object], second: tuple[str, object], claim: str
) -> None:
    register("first-dist", GROUP, {"one": "stranger_c:Chunker"}, version="1.1", stranger_c=_chunker(*first))
    register("second-dist", GROUP, {"two": "stranger_d:Chunker"}, version="2.2", stranger_d=_chunker(*second))
    with pytest.raises(PluginError) as caught:
        choose("x.py", "")
    for part in (claim, "first-dist 1.1", "'one'", "second-dist 2.2", "'two'", "pip uninstall"):
        assert part in str(caught.value)


def test_a_built_in_name_is_taken(register: Register) -> None:
    register("thief", GROUP, {"x": "stranger_e:Chunker"}, stranger_e=_chunker("windows/2", {".cob": "cobol"}))
    with pytest.raises(PluginError, match=r"'windows/2'.*pgembed itself.*thief 1\.0"):
        choose("x.py", "")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (_chunker("a/1", {".COB": "cobol"}), "'.COB' is no file ending in lower case"),
        (_chunker("a/1", {"cob": "cobol"}), "'cob' is no file ending"),
        (_chunker("a/1", {".tar.gz": "tar"}), "'.tar.gz' is no file ending"),
        (_chunker("a/1", {"": "cobol"}), "'' is no file ending"),
        (_chunker("a/1", {".cob": ""}), "the language of '.cob' is ''"),
        (_chunker("", {".cob": "cobol"}), "its name is ''"),
        ("class Chunker:\n    name = 'a/1'\n    extensions = {}\n", "has no attribute 'chunk'"),
        ("class Chunker:\n    def __init__(self, needed): ...\n", "TypeError"),
    ],
)
def test_one_that_cannot_work_is_refused_before_the_first_file(register: Register, source: str, told: str) -> None:
    register("clumsy", GROUP, {"x": "stranger_f:Chunker"}, stranger_f=source)
    with pytest.raises(PluginError) as caught:
        choose("x.py", "")
    assert told in str(caught.value)
    assert "clumsy 1.0" in str(caught.value)
