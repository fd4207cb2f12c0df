"""The text of docstrings and doc comments, without what marks them."""

import ast
import inspect
import re
import warnings

_SIMPLE_LITERAL = re.compile(r"[uU]?(\"\"\"|'''|\"|')(.*)\1", re.DOTALL)
_LINE_OPENING = re.compile(r"^\s*(?:/\*+!?<?|//+!?<?|#+|\*+(?!/)|--)[ \t]?")
_RULE = re.compile(r"^[\s\W_]*$")
_XML_REFERENCE = re.compile(r"<(?:see|seealso|paramref|typeparamref)\s+\w+=\"([^\"]*)\"\s*/>")
_XML_TAG = re.compile(r"</?(?:summary|remarks|param|typeparam|returns|value|exception|para|see|c|code)\b[^>]*>")
# Lines that speak to tools, not to people.
_DIRECTIVE = re.compile(
    r"^(?:go:\w|\+build\b|nolint|eslint|jshint|tslint|prettier-|@ts-|istanbul\b|webpack|rubocop:|frozen_string_literal"
    r"|clang-format|NOLINT|noinspection|phpcs:|phpstan|psalm|ReSharper|region\b|endregion\b)"
)


def literal_docstring(literal: str) -> str | None:
    """Return the docstring that a Python string literal is, dedented as `inspect.cleandoc` does; None if it is none.

    Where the value holds what a text column cannot (NUL, lone surrogates), the literal is taken as it is written.
    """
    match = _SIMPLE_LITERAL.fullmatch(literal)
    if match and "\\" not in literal and match[1] not in match[2]:
        value = match[2]
    else:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)  # invalid escapes in other people's code
                warnings.simplefilter("ignore", DeprecationWarning)
                evaluated = ast.literal_eval(literal)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None  # an f-string, or text that Python itself would refuse
        if not isinstance(evaluated, str):
            return None
        value = evaluated
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            value = match[2] if match else ""
    cleaned = inspect.cleandoc(value)
    return cleaned if cleaned.strip() else None


def comment_text(comment: str) -> str:
    """Return the text of a comment without marks, rules of dashes, directives to tools, and XML tags."""
    lines = [_LINE_OPENING.sub("", line.replace("*/", "")).rstrip() for line in comment.split("\n")]
    lines = ["" if _RULE.match(line) else line for line in lines if not _DIRECTIVE.match(line)]
    return _XML_TAG.sub("", _XML_REFERENCE.sub(r"\1", inspect.cleandoc("\n".join(lines)))).strip()
