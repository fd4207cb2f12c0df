"""A syntax tree to chunks: functions, methods and classes.

A function inside a function belongs to the outer one. A class whose methods are chunks leaves its head as one of its
own (signature, docstring, fields up to the first method), if it says more than its name; a class without methods is
one chunk. Function values (JavaScript's arrows) are chunks where something names them. A declaration without a body
belongs to the class that it stands in. Comments and attributes directly before a definition belong to it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from pgembed.corpus.chunk import MAX_CHUNK_CHARACTERS, Chunk, Chunked
from pgembed.corpus.documentation import comment_text, literal_docstring
from pgembed.corpus.languages import Language
from pgembed.corpus.names import names
from pgembed.corpus.windows import windows

if TYPE_CHECKING:
    from tree_sitter import Node

_MAX_ERROR_LINES = 5
_LICENCE = re.compile(rb"copyright|licen[cs]e|SPDX-", re.IGNORECASE)
# Nodes that a grammar puts around statements without a token of its own: what stands before them stands before theirs.
_TRANSPARENT = frozenset({"body_statement", "statement_list", "enum_body_declarations"})
# What a named function value may be wrapped in: const Button = memo(forwardRef((props, ref) => { … }))
_PASSING = frozenset({"parenthesized_expression", "call_expression", "arguments", "as_expression"})
_NO_BODY = frozenset({";", "default_method_clause", "delete_method_clause", "pure_virtual_clause"})
_STRINGS = frozenset({"string", "concatenated_string", "parenthesized_expression"})


def chunk_definitions(text: str, language: Language) -> Chunked:
    """Cut `text` into its definitions; a text that has none is cut into windows, so that it can be found at all."""
    source = text.encode("utf-8")
    root = language.parser.parse(source).root_node
    walk = _Walk(language)
    walk.run(root)
    cutter = _Cutter(language, source)
    chunks = [chunk for found in walk.found for chunk in cutter.cut(found)]
    if not chunks:
        chunks = list(windows(text, language.name))
    errors = _error_lines(root) if root.has_error else ()
    return Chunked(chunks, errors, tuple(walk.left_out))


@dataclass(slots=True)
class _Place:
    """Where a node stands among its siblings; `above` is its parent's place."""

    siblings: "list[Node]"
    index: int
    above: "_Place | None"

    @property
    def node(self) -> "Node":
        return self.siblings[self.index]


@dataclass(slots=True)
class _Found:
    """A definition."""

    node: "Node"
    span: _Place
    """The outermost node that belongs to it."""
    kind: str
    path: tuple[str, ...]
    owner: "_Found | None"
    members: "list[_Found]" = field(default_factory=list)


@dataclass(slots=True)
class _Step:
    """A node that is still to be looked at, with what its surroundings say about it."""

    place: _Place
    path: tuple[str, ...]
    owner: _Found | None
    in_type: bool
    outer: _Place | None = None
    """The wrapper that belongs to a definition here."""
    namer: "Node | None" = None
    """What would name a function value here."""
    in_call: bool = False


class _Walk:
    """Finds the definitions of one tree, in their order. A stack of its own: real trees nest thousands deep."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self.found: list[_Found] = []
        self.left_out: list[str] = []
        self._stack: list[_Step] = []

    def run(self, root: "Node") -> None:
        self._stack = [_Step(_Place([root], 0, None), (), None, in_type=False)]
        while self._stack:
            self._look(self._stack.pop())

    def _look(self, step: _Step) -> None:
        language, node = self.language, step.place.node
        kind = node.type
        if kind in language.functions:
            if node.child_by_field_name("body") is not None or node.children[-1].type not in _NO_BODY:
                self._add(node, step, names(node, language))
        elif kind in language.values:
            named = names(step.namer, language) if step.namer is not None else ()
            if named and not (step.in_call and node.end_point[0] - node.start_point[0] < 2):
                self._add(node, step, named)
            else:
                self._below(step, path=step.path)
        elif kind in language.types or kind in language.scopes:
            self._container(step, node)
        elif kind in language.namers:
            self._below(step, path=step.path, outer=step.outer or step.place, namer=node)
        elif kind in language.wrappers:
            default = kind == "export_statement" and any(child.type == "default" for child in node.children)
            alone = sum(self._defines(child) for child in node.children) == 1
            self._below(
                step,
                path=step.path,
                outer=(step.outer or step.place) if alone else None,
                namer=node if default or kind == "type_definition" else None,
            )
        elif kind in _PASSING and step.namer is not None:
            in_call = step.in_call or kind == "call_expression"
            self._below(step, path=step.path, outer=step.outer, namer=step.namer, in_call=in_call)
        elif kind == "object" and step.namer is not None:
            self._below(step, path=step.path + names(step.namer, language))
        elif kind not in language.skipped:
            self._below(step, path=step.path)

    def _defines(self, node: "Node") -> bool:
        language, kind = self.language, node.type
        return (
            kind in language.functions
            or kind in language.values
            or kind in language.types
            or kind in language.namers
            or kind in language.wrappers
        )

    def _container(self, step: _Step, node: "Node") -> None:
        named = names(node, self.language) or (names(step.namer, self.language) if step.namer is not None else ())
        owner, is_type = step.owner, node.type in self.language.types
        if is_type and named and _has_body(node):
            found = _Found(node, step.outer or step.place, "class", step.path + named, owner)
            self.found.append(found)
            owner = found
        self._below(step, path=step.path + named, owner=owner, in_type=is_type)

    def _add(self, node: "Node", step: _Step, named: tuple[str, ...]) -> None:
        path = step.path + (named or ("",))
        if node.has_error and not self.language.preprocessed:
            self.left_out.append(self.language.separator.join(path))
            return
        is_method = step.in_type or (len(named) > 1 and node.type in self.language.functions)
        found = _Found(node, step.outer or step.place, "method" if is_method else "function", path, step.owner)
        self.found.append(found)
        owner = step.owner
        while owner is not None:
            owner.members.append(found)
            owner = owner.owner

    def _below(
        self,
        step: _Step,
        *,
        path: tuple[str, ...],
        owner: _Found | None = None,
        in_type: bool | None = None,
        outer: _Place | None = None,
        namer: "Node | None" = None,
        in_call: bool = False,
    ) -> None:
        children = step.place.node.children
        for index in range(len(children) - 1, -1, -1):
            if children[index].child_count:
                self._stack.append(
                    _Step(
                        _Place(children, index, step.place),
                        path,
                        owner or step.owner,
                        step.in_type if in_type is None else in_type,
                        outer,
                        namer,
                        in_call,
                    )
                )


class _Cut(NamedTuple):
    """Bytes that the body goes without, and what stands there instead."""

    start: int
    end: int
    instead: bytes = b""


class _Cutter:
    """Cuts one file's text at its definitions."""

    def __init__(self, language: Language, source: bytes) -> None:
        self.language = language
        self.source = source

    def cut(self, found: _Found) -> Iterator[Chunk]:
        """Yield the chunk of a definition: none for a class that says nothing beside its methods, windows if long."""
        start, documentation = self._start(found.span)
        end = found.span.node.end_byte
        if found.members:
            end = self._head_end(found)
            if end <= start:
                return
        if self.language.docstring_inside:
            docstring, cuts = self._inner_docstring(found.node, end)
        else:
            docstring = comment_text("\n".join(self._text(part).rstrip("\n") for part in documentation)) or None
            cuts = [_Cut(part.start_byte, part.end_byte) for part in documentation] if docstring else []
        if found.members and docstring is None and not self._has_fields(found.node, end):
            return
        indent = self.source[start : start + len(self.source[start:end]) - len(self.source[start:end].lstrip(b" \t"))]
        content = self._shown(self.source[start:end], indent)
        first_line = self.source.count(b"\n", 0, start) + 1 if documentation else self._first_line(found.span, start)
        symbol, qualified = found.path[-1], self.language.separator.join(part for part in found.path if part)
        if len(content) > MAX_CHUNK_CHARACTERS:
            yield from windows(content, self.language.name, first_line=first_line, symbol=symbol, qualified=qualified)
            return
        body = self._shown(self._without(start, end, cuts), indent) if cuts else content
        last_line = first_line + content.count("\n")
        yield Chunk(
            self.language.name, found.kind, symbol, qualified, content, docstring, body, first_line, last_line
        )  # fmt: skip

    def _start(self, span: _Place) -> "tuple[int, list[Node]]":
        """Return where a definition's text begins, and the doc comments before it."""
        start, documentation = span.node.start_byte, []
        if not self.language.docstring_inside:
            lead = self._leading(span)
            if lead:
                start = lead[0].start_byte
                documentation = [
                    part
                    for part in lead
                    if part.type in self.language.comments
                    and self._text(part).startswith(self.language.doc_openings)
                ]  # fmt: skip
        line_start = self.source.rfind(b"\n", 0, start) + 1
        return (start if self.source[line_start:start].strip() else line_start), documentation

    def _first_line(self, span: _Place, start: int) -> int:
        row = span.node.start_point[0] - self.source.count(b"\n", start, span.node.start_byte)
        return int(row) + 1

    def _head_end(self, found: _Found) -> int:
        """Return where the first member of a class begins, or the statement (an `if`, say) that it stands in."""
        end = min(self._start(member.span)[0] for member in found.members)
        body = found.node.child_by_field_name("body")
        around = next((child for child in body.named_children if child.end_byte > end), None) if body else None
        if around is not None and around.start_byte < end:
            end = self.source.rfind(b"\n", 0, around.start_byte) + 1
        return end

    def _has_fields(self, node: "Node", end: int) -> bool:
        """Whether a class says at least two lines more than its signature before byte `end`."""
        body = node.child_by_field_name("body") or node.child_by_field_name("type")
        return body is not None and self.source[body.start_byte : end].rstrip().count(b"\n") >= 2

    # ------------------------------------------------------------------ text

    def _text(self, node: "Node") -> str:
        return self.source[node.start_byte : node.end_byte].decode("utf-8", "replace")

    @staticmethod
    def _shown(text: bytes, indent: bytes) -> str:
        if indent:
            text = b"\n".join(line.removeprefix(indent) for line in text.split(b"\n"))
        return text.decode("utf-8", "replace").rstrip()

    def _without(self, start: int, end: int, cuts: list[_Cut]) -> bytes:
        """Return the bytes from start to end without the cuts and, where a cut fills them, without its lines."""
        kept, position = [], start
        for cut in cuts:
            cut_start, cut_end = cut.start, cut.end
            if cut.instead:
                kept.append(self.source[position:cut_start] + cut.instead)
                position = cut_end
                continue
            line_start = max(self.source.rfind(b"\n", 0, cut_start) + 1, start)
            if not self.source[line_start:cut_start].strip():
                line_end = self.source.find(b"\n", cut_end, end)
                line_end = end if line_end < 0 else line_end + 1
                if self.source[cut_end - 1 : cut_end] == b"\n":
                    line_end = cut_end  # Rust's line comments end after their newline
                if not self.source[cut_end:line_end].strip():
                    cut_start, cut_end = line_start, line_end
                    while (blank := self.source.find(b"\n", cut_end, end)) >= 0 and not self.source[
                        cut_end:blank
                    ].strip():
                        cut_end = blank + 1
            kept.append(self.source[position : max(cut_start, position)])
            position = max(position, cut_end)
        return b"".join([*kept, self.source[position:end]])

    # ------------------------------------------------------------------ documentation

    def _inner_docstring(self, node: "Node", end: int) -> tuple[str | None, list[_Cut]]:
        """Return a Python docstring, and where it stands among the statements before byte `end`."""
        block = node.child_by_field_name("body")
        statements = [child for child in block.named_children if child.type != "comment"] if block else []
        statements = [child for child in statements if child.start_byte < end]
        if not statements or statements[0].type != "expression_statement" or statements[0].named_child_count != 1:
            return None, []
        first, literal = statements[0], statements[0].named_children[0]
        docstring = literal_docstring(self._text(literal)) if literal.type in _STRINGS else None
        if docstring is None:
            return None, []
        if len(statements) == 1:
            # a definition without any statement would be no Python
            return docstring, [_Cut(first.start_byte, first.end_byte, b"...")]
        if statements[1].start_point[0] == first.end_point[0]:  # def f(): "Say so."; return 1
            return docstring, [_Cut(first.start_byte, statements[1].start_byte)]
        return docstring, [_Cut(first.start_byte, first.end_byte)]

    def _leading(self, span: _Place) -> "list[Node]":
        """Return the comments and attributes that stand directly before a definition, in their order."""
        found: list[Node] = []
        place: _Place | None = span
        current = span.node
        wanted = self.language.comments | self.language.attributes
        while place is not None:
            if place.index == 0:
                place = place.above if place.above is not None and place.above.node.type in _TRANSPARENT else None
                continue
            place = _Place(place.siblings, place.index - 1, place.above)
            before = place.node
            if before.type not in wanted or current.start_point[0] - _last_row(before) > 1:
                break
            ahead = place.siblings[place.index - 1] if place.index else None
            if ahead is not None and ahead.end_point[0] == before.start_point[0] and ahead.end_point[1] > 0:
                break  # it follows code on its line: a remark on that code
            if before.start_point[0] <= 1 and _LICENCE.search(self.source[before.start_byte : before.end_byte]):
                break  # it speaks about the file
            found.insert(0, before)
            current = before
        return found


def _last_row(node: "Node") -> int:
    # Rust's line comments end after their newline
    return int(node.end_point[0]) - (1 if node.end_point[1] == 0 else 0)


def _has_body(node: "Node") -> bool:
    body = node.child_by_field_name("body")
    if body is not None:
        return node.type != "impl_item" or body.named_child_count > 0
    kind = node.child_by_field_name("type")
    return node.type == "type_spec" and kind is not None and kind.type in ("struct_type", "interface_type")


def _error_lines(root: "Node") -> tuple[int, ...]:
    """Return the lines (from 1) of the first nodes that the grammar could not read."""
    lines: list[int] = []
    stack = [root]
    while stack and len(lines) < _MAX_ERROR_LINES:
        node = stack.pop()
        if node.type == "ERROR" or node.is_missing:
            if (line := node.start_point[0] + 1) not in lines:
                lines.append(line)
        else:
            stack.extend(child for child in reversed(node.children) if child.has_error or child.is_missing)
    return tuple(lines)
