"""What a definition is called: its name, and the names around it."""

import re
from typing import TYPE_CHECKING

from pgembed.corpus.languages import Language

if TYPE_CHECKING:
    from tree_sitter import Node

_MAX_NAME = 200
_FIELDS = {
    "impl_item": "type",
    "pair": "key",
    "assignment_expression": "left",
    "field_definition": "property",
    "operator_declaration": "operator",
    "conversion_operator_declaration": "type",
}
"""The field that holds the name, where it is not `name`."""
_SPACE = re.compile(r"\s+")
_GENERIC = re.compile(r"<[^<>]*>")
_OPERATOR = re.compile(r"(?P<scope>(?:.*::)?\s*)operator\b(?P<sign>.*)")
_RECEIVER = re.compile(r"\(\s*(?:\w+\s+)?\*?\s*(?:\w+\.)?(\w+)")
_NOT_PART = frozenset({"this", "self", "window", "exports", "module", "prototype", "default"})


def names(node: "Node", language: Language) -> tuple[str, ...]:
    """Return the name of a definition or namer, with the names it carries itself (`Foo::bar` gives both)."""
    if node.type == "export_statement":
        return ("default",)
    named = node.child_by_field_name(_FIELDS.get(node.type, "name"))
    if named is None:
        declared = _declared(node)
        return _parts(declared, language) if declared is not None else ()
    if node.type == "assignment_expression":
        parts = [part.strip() for part in _text(named).split(".")]
        return (*(part for part in parts[:-1] if part not in _NOT_PART), parts[-1])
    if node.type == "method_declaration" and (receiver := node.child_by_field_name("receiver")) is not None:
        match = _RECEIVER.match(_text(receiver))
        return (*((match[1],) if match else ()), _text(named))
    if node.type in ("impl_item", "namespace_definition", "namespace_declaration", "internal_module"):
        return _parts(named, language)
    if node.type == "operator_declaration":
        return (f"operator{_text(named)}",)
    return (_text(named).strip("'\"`"),)


def _declared(node: "Node") -> "Node | None":
    """Return the innermost declarator: in C the name stands among pointers, parentheses and parameters."""
    declarator = node.child_by_field_name("declarator")
    while declarator is not None:
        inner = declarator.child_by_field_name("declarator")
        if inner is None and declarator.type in ("parenthesized_declarator", "reference_declarator"):
            inner = next((child for child in declarator.named_children if child.type != "comment"), None)
        if inner is None:
            return declarator
        declarator = inner
    return None


def _parts(node: "Node", language: Language) -> tuple[str, ...]:
    """Split `ns::Foo<T>::bar` at its separators, without the arguments of templates."""
    text = _text(node)
    operator = _OPERATOR.fullmatch(text)
    scope = operator["scope"] if operator else text.partition("(")[0]
    while (shorter := _GENERIC.sub("", scope)) != scope:
        scope = shorter
    found = tuple(part.strip() for part in scope.split(language.separator) if part.strip())
    return (*found, _operator_name(operator["sign"])) if operator else found


def _operator_name(sign: str) -> str:
    return "operator()" if sign.startswith("(") else f"operator{sign.partition('(')[0]}".strip()


def _text(node: "Node") -> str:
    return _SPACE.sub(" ", (node.text or b"").decode("utf-8", "replace"))[:_MAX_NAME].strip()
