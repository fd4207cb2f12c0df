"""A file's text to chunks: functions and methods where there is a grammar, windows of lines elsewhere.

A function inside a function belongs to the outer one. A class without methods is a chunk; one with methods is not,
its methods are. A file of code that defines nothing is cut into windows, so that it can be found at all.
"""

import ast
import hashlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgembed.corpus.languages import Language

if TYPE_CHECKING:
    from tree_sitter import Node

VERSION = "tree-sitter/1"
"""Stored with each file: a file that another version has read is read again."""

WINDOW_LINES = 60
WINDOW_OVERLAP = 10
MAX_CHUNK_CHARACTERS = 20_000
"""A longer definition is cut into windows: no encoder reads that far, and one chunk must not fill a slice."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of code at one place."""

    language: str
    kind: str
    symbol: str
    qualified: str
    content: str
    docstring: str | None
    body: str
    start_line: int
    end_line: int

    @property
    def sha256(self) -> bytes:
        """The address of its content: the same code anywhere has the same."""
        return hashlib.sha256(f"{self.language}\0{self.kind}\0{self.content}".encode()).digest()


@dataclass(frozen=True, slots=True)
class Chunked:
    """What a file gave."""

    chunks: list[Chunk]
    error_line: int | None
    """The first line that the grammar could not read; what parses is kept all the same."""


def chunk_text(text: str, language: Language | str) -> Chunked:
    """Cut `text` into chunks."""
    if isinstance(language, str):
        return Chunked(list(_windows(text, language)), None)
    source = text.encode("utf-8")
    root = language.parser().parse(source).root_node
    reader = _Reader(language, source)
    chunks = list(reader.definitions(root, ()))
    if not chunks:
        chunks = list(_windows(text, language.name))
    return Chunked(chunks, _first_error_line(root) if root.has_error else None)


class _Reader:
    """Walks one file's tree."""

    def __init__(self, language: Language, source: bytes) -> None:
        self.language = language
        self.source = source

    def definitions(self, node: "Node", path: tuple[str, ...], outer: "Node | None" = None) -> Iterator[Chunk]:
        """Yield the chunks at and below `node`; `outer` is the wrapper that belongs to it."""
        kind = node.type
        if kind in self.language.functions and node.is_named:
            span = outer or node
            name = self._name(node)
            if kind in ("arrow_function", "function_expression"):
                # a function value is a chunk where it gets a name; elsewhere it is part of what surrounds it
                declaration = node.parent
                if declaration is None or declaration.type not in ("variable_declarator", "field_definition",
                                                                   "public_field_definition"):  # fmt: skip
                    yield from self._below(node, path)
                    return
                name = self._name(declaration) or self._text(declaration.children[0])
                span = (
                    outer or (declaration.parent if declaration.type == "variable_declarator" else None) or declaration
                )
            is_method = self._in_type(node) or node.type == "method_declaration"
            yield from self._chunk(span, node, name, "method" if is_method else "function", path)
            return
        if kind in self.language.containers and node.is_named:
            name = self._name(node)
            inside = list(self._below(node, (*path, name) if name else path))
            if inside or not name or node.end_point[0] == node.start_point[0]:
                yield from inside
            else:
                yield from self._chunk(outer or node, node, name, "class", path)
            return
        if kind in self.language.wrappers or kind in ("lexical_declaration", "variable_declaration"):
            yield from self._below(node, path, outer or node)
            return
        if kind == "variable_declarator":
            yield from self._below(node, path, outer)
            return
        yield from self._below(node, path)

    def _below(self, node: "Node", path: tuple[str, ...], outer: "Node | None" = None) -> Iterator[Chunk]:
        for child in node.children:
            if child.child_count:
                yield from self.definitions(child, path, outer)

    def _chunk(self, span: "Node", node: "Node", name: str, kind: str, path: tuple[str, ...]) -> Iterator[Chunk]:
        start, first_line = span.start_byte, span.start_point[0]
        end = span.end_byte
        docstring: str | None = None
        cut: tuple[int, int] | None = None  # the bytes that body goes without
        if self.language.docstring_inside:
            docstring, cut = self._inner_docstring(node)
        else:
            lead = self._leading(span)
            if lead:
                start, first_line = lead[0].start_byte, lead[0].start_point[0]
                comments = [part for part in lead if part.type in self.language.comments]
                docstring = clean_comment("\n".join(self._text(part).rstrip("\n") for part in comments)) or None
                if comments:
                    cut = (comments[0].start_byte, comments[-1].end_byte)
        start, indent = self._line_start(start)
        content = self._dedented(self.source[start:end], indent)
        body = content if cut is None or docstring is None else self._dedented(self._without(start, end, *cut), indent)
        last_line = span.end_point[0] - (1 if span.end_point[1] == 0 and span.end_point[0] > first_line else 0)
        if len(content) > MAX_CHUNK_CHARACTERS:
            for window in _windows(content, self.language.name, first_line + 1):
                yield Chunk(
                    window.language, kind, name, ".".join((*path, name)), window.content, None, window.body,
                    window.start_line, window.end_line,
                )  # fmt: skip
            return
        yield Chunk(
            self.language.name,
            kind,
            name,
            ".".join((*path, name)),
            content,
            docstring,
            body,
            first_line + 1,
            last_line + 1,
        )

    # ------------------------------------------------------------------ text

    def _text(self, node: "Node") -> str:
        return self.source[node.start_byte : node.end_byte].decode("utf-8", "replace")

    def _line_start(self, byte: int) -> tuple[int, bytes]:
        """Return where the line's text starts if only white space stands before `byte`, and that white space."""
        start = self.source.rfind(b"\n", 0, byte) + 1
        indent = self.source[start:byte]
        return (start, indent) if not indent.strip() else (byte, b"")

    @staticmethod
    def _dedented(text: bytes, indent: bytes) -> str:
        if indent:
            text = b"\n".join(line.removeprefix(indent) for line in text.split(b"\n"))
        return text.decode("utf-8", "replace").strip("\n")

    def _without(self, start: int, end: int, cut_start: int, cut_end: int) -> bytes:
        """Return the bytes from start to end without the cut and, where it has them for itself, its lines."""
        line_start, indent = self._line_start(cut_start)
        if indent or line_start == cut_start:
            rest = self.source.find(b"\n", cut_end, end)
            rest = end if rest < 0 else rest + 1
            if not self.source[cut_end:rest].strip():
                cut_start, cut_end = line_start, rest
        return self.source[start:cut_start] + self.source[cut_end:end]

    def _inner_docstring(self, node: "Node") -> tuple[str | None, tuple[int, int] | None]:
        block = node.child_by_field_name("body")
        first = next((child for child in block.named_children if child.type != "comment"), None) if block else None
        if first is None or first.type != "expression_statement" or first.named_child_count != 1:
            return None, None
        literal = first.named_children[0]
        if literal.type not in ("string", "concatenated_string"):
            return None, None
        try:
            value = ast.literal_eval(f"({self._text(literal)})")
        except (ValueError, SyntaxError, MemoryError):
            return None, None  # an f-string, or text that Python itself would refuse
        if not isinstance(value, str) or not (cleaned := inspect.cleandoc(value).strip()):
            return None, None
        return cleaned, (first.start_byte, first.end_byte)

    def _leading(self, span: "Node") -> list["Node"]:
        """Return the comments and attributes that stand directly before `span`, in their order."""
        found: list[Node] = []
        current = span
        while (before := current.prev_sibling) is not None:
            if before.type not in self.language.comments | self.language.between:
                break
            # Rust's line comments end after their newline
            end_row = before.end_point[0] - (1 if before.end_point[1] == 0 else 0)
            if current.start_point[0] - end_row > 1:
                break
            ahead = before.prev_sibling
            if ahead is not None and ahead.end_point[0] == before.start_point[0] and ahead.end_point[1] > 0:
                break  # it follows code on its line: a remark on that code
            found.insert(0, before)
            current = before
        return found

    # ------------------------------------------------------------------ names

    def _in_type(self, node: "Node") -> bool:
        parent = node.parent
        while parent is not None:
            if parent.type in self.language.containers:
                return parent.type not in ("namespace_definition", "namespace_declaration", "mod_item", "module")
            parent = parent.parent
        return False

    def _name(self, node: "Node") -> str:
        named = node.child_by_field_name("name")
        if named is None and node.type == "impl_item":
            named = node.child_by_field_name("type")
        if named is not None:
            return self._text(named)
        declarator = node.child_by_field_name("declarator")
        while declarator is not None:  # C: the name is the innermost declarator
            inner = declarator.child_by_field_name("declarator")
            if inner is None:
                return self._text(declarator).partition("(")[0].strip()
            declarator = inner
        return ""


def _windows(text: str, language: str, first_line: int = 1) -> Iterator[Chunk]:
    lines = text.split("\n")
    for start in range(0, max(len(lines) - WINDOW_OVERLAP, 1), WINDOW_LINES - WINDOW_OVERLAP):
        part = lines[start : start + WINDOW_LINES]
        # a line without end is cut into pieces of a chunk's size: nothing of it is left out
        joined = "\n".join(part)
        for offset in range(0, max(len(joined), 1), MAX_CHUNK_CHARACTERS):
            piece = joined[offset : offset + MAX_CHUNK_CHARACTERS]
            if piece.strip():
                yield Chunk(
                    language,
                    "window",
                    "",
                    "",
                    piece,
                    None,
                    piece,
                    first_line + start,
                    first_line + start + len(part) - 1,
                )


_COMMENT_OPENING = re.compile(r"^\s*(?:/\*[*!]?|//[/!]?|#+|\*(?!/)|--)?[ \t]?")
_XML_TAG = re.compile(r"</?(?:summary|remarks|param|returns|para|see|c)\b[^>]*>")


def clean_comment(comment: str) -> str:
    """Return the text of a comment without its markers."""
    lines = [_COMMENT_OPENING.sub("", line.replace("*/", "")).rstrip() for line in comment.split("\n")]
    return _XML_TAG.sub("", inspect.cleandoc("\n".join(lines))).strip()


def _first_error_line(root: "Node") -> int:
    """Return the line (from 1) of the first node that the grammar could not read."""
    node = root
    while node.type != "ERROR" and not node.is_missing:
        child = next((child for child in node.children if child.has_error or child.is_missing), None)
        if child is None:
            break
        node = child
    return node.start_point[0] + 1
