"""The ids must be transformers' own: another id is another vector, and nobody would notice."""

import ast
import inspect
import itertools
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures_code import CODE, ENORMOUS, HOSTILE

from pgembed.encoders.presets import preset
from pgembed.encoders.tokenizer import Tokenizer
from pgembed.encoders.weights import locate

END = "<|endoftext|>"
# As Qwen2's tokenizer.json splits a text before byte-level BPE.
_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.fixture(scope="module")
def minilm() -> Path:
    return locate(preset("minilm").towers[0])


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE tokenizer put together as Qwen2's is, with a vocabulary of 1,000 from the code of this test."""
    from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from tokenizers import Tokenizer as Raw

    raw = Raw(models.BPE())
    raw.normalizer = normalizers.NFC()
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    raw.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    raw.train_from_iterator(CODE.values(), trainer)
    raw.add_special_tokens([AddedToken(token, special=True) for token in (END, "<|im_start|>", "<|im_end|>")])
    folder = tmp_path_factory.mktemp("qwen2")
    raw.save(str(folder / "tokenizer.json"))
    model = json.loads(raw.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("\n".join(" ".join(pair) for pair in model["merges"]))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Qwen2Tokenizer", "eos_token": END, "pad_token": END})
    )
    return folder


@pytest.fixture(scope="module", params=["minilm", "qwen2"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    return _reference(folder)


def _reference(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def functions() -> Iterator[str]:
    for module in (ast, inspect, textwrap):
        source = inspect.getsource(module)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                yield ast.get_source_segment(source, node) or ""


@pytest.mark.parametrize("limit", [256, 32])
def test_ids_are_those_of_transformers(folder: Path, reference: Any, limit: int) -> None:
    texts = [*itertools.islice(functions(), 0, None, 2), *CODE.values(), *HOSTILE]
    expected = reference(texts, truncation=True, max_length=limit, padding=False)["input_ids"]
    assert Tokenizer(folder / "tokenizer.json", max_tokens=256).encode(texts, max_tokens=limit) == expected
    assert sum(map(len, expected)) > 20 * len(texts)  # ids, not empty rows or unknowns alone


@pytest.mark.parametrize("position", range(len(ENORMOUS)))
def test_ids_of_an_enormous_text_are_those_of_transformers_too(folder: Path, reference: Any, position: int) -> None:
    text = ENORMOUS[position]
    expected = reference(text, truncation=True, max_length=100)["input_ids"]
    assert Tokenizer(folder / "tokenizer.json", max_tokens=100).encode([text]) == [expected]


def test_a_special_token_across_the_part_that_is_looked_at_first_is_not_cut(qwen2: Path, tmp_path: Path) -> None:
    """Of 512 characters few tokens must come, so that the limit falls where that part ends: a word of some 490."""
    from tokenizers import Tokenizer as Raw

    raw = Raw.from_file(str(qwen2 / "tokenizer.json"))
    raw.add_tokens(["L" * length for length in range(480, 502)])
    raw.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path / "tokenizer.json", max_tokens=8)
    for length, digits in itertools.product(range(480, 502), range(4, 8)):
        text = "L" * length + "1234567"[:digits] + END + " tail" * 50
        ids = raw.encode(text).ids
        assert ids[1 + digits] == raw.token_to_id(END)
        assert tokenizer.encode([text]) == [ids[:8]]


def test_half_a_surrogate_pair_is_refused_as_transformers_does(folder: Path, reference: Any) -> None:
    """No str from Postgres holds one; the command line can hand one in."""
    with pytest.raises((TypeError, UnicodeEncodeError)):
        reference("a \ud800 b")
    with pytest.raises((TypeError, UnicodeEncodeError)):
        Tokenizer(folder / "tokenizer.json", max_tokens=256).encode(["a \ud800 b"])


def test_texts_beyond_the_limit_are_counted_and_marked(minilm: Path) -> None:
    tokenizer = Tokenizer(minilm / "tokenizer.json", max_tokens=8)
    texts = ["one two three four five six", "one two three four five six seven", "word " * 1000]
    marked = tokenizer.encode_marked(texts)
    assert [(len(ids), is_long) for ids, is_long in marked] == [(8, False), (8, True), (8, True)]
    assert tokenizer.truncated == 2


def test_a_lower_limit_holds_for_one_call_only_and_a_higher_one_never(minilm: Path) -> None:
    tokenizer = Tokenizer(minilm / "tokenizer.json", max_tokens=8)
    text = ["word " * 20]
    assert [len(tokenizer.encode(text, max_tokens=n)[0]) for n in (4, 100, None)] == [4, 8, 8]


@pytest.mark.parametrize("limit", [24, 64])
def test_windows_are_those_of_transformers(folder: Path, reference: Any, limit: int) -> None:
    given = [*itertools.islice(functions(), 0, None, 10), *CODE.values()]
    texts = [text for text in given if len(reference(text)["input_ids"]) > limit]
    special = len(reference("")["input_ids"])
    stride = (limit - special) // 8
    assert len(texts) > 20
    tokenizer = Tokenizer(folder / "tokenizer.json", max_tokens=limit)
    for text in texts:
        expected = reference(
            text, truncation=True, max_length=limit, stride=stride, return_overflowing_tokens=True, padding=False
        )["input_ids"]
        found = tokenizer.windows(text)
        assert [window.ids for window in found] == expected
        assert [window.tokens for window in found] == [len(ids) - special for ids in expected]


def test_each_window_has_the_prompt_and_together_they_hold_the_text(minilm: Path) -> None:
    tokenizer = Tokenizer(minilm / "tokenizer.json", max_tokens=24)
    reference = _reference(minilm)
    prompt = "Represent the document: "
    text = CODE["go"]
    windows = tokenizer.windows(text, prompt=prompt)
    lead = reference(prompt)["input_ids"][:-1]
    content = reference(text, add_special_tokens=False)["input_ids"]
    rebuilt: list[int] = []
    overlap = (24 - len(lead) - 1) // 8
    for window in windows:
        assert len(window.ids) <= 24
        assert window.ids[: len(lead)] == lead
        assert window.ids[-1] == 102  # [SEP]
        piece = window.ids[len(lead) : -1]
        assert window.tokens == len(piece)
        assert rebuilt[len(rebuilt) - overlap :] == piece[:overlap] or not rebuilt
        rebuilt += piece[overlap:] if rebuilt else piece
    assert rebuilt == content
