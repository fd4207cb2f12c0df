"""The ids must be transformers' own: another id is another vector, and nobody would notice."""

import ast
import inspect
import textwrap
from pathlib import Path
from typing import Any

import pytest

from pgembed.encoders.presets import preset
from pgembed.encoders.tokenizer import Tokenizer
from pgembed.encoders.weights import locate

HOSTILE = [
    "",
    " ",
    "\n\t\r\n",
    "\x00nul\x00",
    "\ufeffbom",
    "é e\u0301 ﬁ Ⅷ ǅ",
    "日本語のコメント 한국어 עברית العربية",
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "\u202eright to left\u202c",
    "[CLS] [SEP] [MASK] [PAD] [UNK]",
    "a" * 5000,
    "{}[]();:,.<>/?!@#$%^&*-+=|\\`~'\"" * 20,
    "snake_case camelCase HTTPServer2 0xDEADBEEF 1e-9 __init__",
    "\ud7ff\ue000\U0010ffff",
]
# Longer than what is looked at first: spaces without end, one word without end, both, and a word at the cut.
ENORMOUS = [
    " " * 40_000 + "def late(): pass",
    "x" * 40_000 + " after",
    ("QUJD" * 500 + " ") * 30 + "tail",
    "word " * 20_000,
    "a " + "b" * 16_381 + " " + "c " * 300,
]


@pytest.fixture(scope="module")
def folder() -> Path:
    return locate(preset("minilm").towers[0])


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def functions() -> list[str]:
    found = []
    for module in (ast, inspect, textwrap):
        source = inspect.getsource(module)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                found.append(ast.get_source_segment(source, node) or "")
    return found


@pytest.mark.parametrize("limit", [256, 32])
def test_ids_are_those_of_transformers(folder: Path, reference: Any, limit: int) -> None:
    texts = functions() + HOSTILE + ENORMOUS
    expected = reference(texts, truncation=True, max_length=limit, padding=False)["input_ids"]
    assert Tokenizer(folder / "tokenizer.json", max_tokens=256).encode(texts, max_tokens=limit) == expected


def test_texts_beyond_the_limit_are_counted(folder: Path) -> None:
    tokenizer = Tokenizer(folder / "tokenizer.json", max_tokens=8)
    ids = tokenizer.encode(["one two three four five six", "one two three four five six seven", "word " * 1000])
    assert [len(row) for row in ids] == [8, 8, 8]
    assert tokenizer.truncated == 2


def test_a_lower_limit_holds_for_one_call_only_and_a_higher_one_never(folder: Path) -> None:
    tokenizer = Tokenizer(folder / "tokenizer.json", max_tokens=8)
    text = ["word " * 20]
    assert [len(tokenizer.encode(text, max_tokens=n)[0]) for n in (4, 100, None)] == [4, 8, 8]
