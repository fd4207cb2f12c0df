"""A tokenizer.json that ends every text with a token which the published one leaves to code.

gte-Qwen2 and what came of it (Qodo-Embed-1) append <|endoftext|> in tokenization_qwen.py when tokenizer_config.json
says `add_eos_token`; tokenizer.json alone does not. Last-token pooling without it takes another, plausible vector.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from pgembed.encoders.spec import TowerSpec
from pgembed.encoders.tokenizer import Tokenizer
from pgembed.errors import EncoderError


def tower_tokenizer(tower: TowerSpec, folder: Path, *, max_tokens: int) -> Tokenizer:
    """Return the tokenizer of a tower whose files are in `folder`, with its end of text."""
    if not tower.end_of_text:
        return Tokenizer(folder / "tokenizer.json", max_tokens=max_tokens)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "tokenizer.json"
        path.write_text(tokenizer_json(tower, folder), encoding="utf-8")
        return Tokenizer(path, max_tokens=max_tokens)


def tokenizer_json(tower: TowerSpec, folder: Path) -> str:
    """Return the tokenizer's file as the tower needs it.

    Raises:
        EncoderError: the token is not in its vocabulary.
    """
    path = folder / "tokenizer.json"
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if tower.end_of_text else {}
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path} is not a tokenizer that can be read: {error}") from error
    if not tower.end_of_text or ends_with(values, tower.end_of_text):
        return text
    token = tower.end_of_text
    known = {str(added["content"]): int(added["id"]) for added in values.get("added_tokens") or []}
    vocabulary = (values.get("model") or {}).get("vocab")
    number = known.get(token, vocabulary.get(token) if isinstance(vocabulary, dict) else None)
    if number is None:
        raise EncoderError(f"Tower {tower.name!r}: {path} has no token {token!r} to end a text with.")
    step = _template(token, number)
    before = values.get("post_processor")
    values["post_processor"] = {"type": "Sequence", "processors": [before, step]} if before else step
    return json.dumps(values, ensure_ascii=False)


def ends_with(tokenizer: dict[str, Any], token: str) -> bool:
    """Tell whether a tokenizer.json appends `token` to a text by itself."""
    step = tokenizer.get("post_processor") or {}
    steps = step.get("processors") or [step]
    templates = [step.get("single") or [] for step in steps if step.get("type") == "TemplateProcessing"]
    pairs = [step.get("sep") or [None] for step in steps if step.get("type") in ("BertProcessing", "RobertaProcessing")]
    last = [template[-1].get("SpecialToken", {}).get("id") for template in templates if template]
    return token in last or any(pair[0] == token for pair in pairs)


def _template(token: str, number: int) -> dict[str, Any]:
    """Return the `tokenizers` library's own form of "the text, then this token"."""
    text, end = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": token, "type_id": 0}}
    other = {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [text, end],
        "pair": [text, end, other, end],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
    }
