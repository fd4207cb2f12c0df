"""Definitions in every language of the table: what is a chunk, where it stands, what documents it."""

import ast
import sysconfig
import textwrap
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest

from pgembed.corpus.chunk import MAX_CHUNK_CHARACTERS, Chunk, Chunked
from pgembed.corpus.definitions import chunk_definitions
from pgembed.corpus.languages import BY_NAME, LANGUAGES


def _cut(language: str, source: str) -> Chunked:
    return chunk_definitions(textwrap.dedent(source).lstrip("\n"), BY_NAME[language])


class Expected(NamedTuple):
    kind: str
    qualified: str
    lines: tuple[int, int]
    docstring: str | None


_SNIPPETS: dict[str, tuple[str, list[Expected]]] = {
    "python": (
        '''
        @cache
        def outer(a):
            """Outer says.

            More of it.
            """
            def nested(): return 1
            return nested

        class Shape(Base):
            """A shape."""
            @property
            async def area(self):
                r"Area \\d."; return 1

            if True:
                def only(self):
                    "No more than this."

        class Empty(Exception):
            pass
        ''',
        [
            Expected("function", "outer", (1, 8), "Outer says.\n\nMore of it."),
            Expected("class", "Shape", (10, 11), "A shape."),
            Expected("method", "Shape.area", (12, 14), "Area \\d."),
            Expected("method", "Shape.only", (17, 18), "No more than this."),
            Expected("class", "Empty", (20, 21), None),
        ],
    ),
    "javascript": (
        """
        // a remark, not documentation
        function plain(a) { return a }

        /**
         * Adds.
         * @param a a number
         */
        export const add = (a, b) => {
          return a + b;
        };
        class Shape {
          /** How large. */
          get area() { return 1 }
          grow = () => { this.size++ }
        }
        module.exports.sub = function (a, b) { return a - b };
        const api = { call() { return 1 }, 'other': () => 2 };
        (function () { function hidden() { return 1 } })();
        items.map(x => x + 1);
        """,
        [
            Expected("function", "plain", (1, 2), None),
            Expected("function", "add", (4, 10), "Adds.\n@param a a number"),
            Expected("method", "Shape.area", (12, 13), "How large."),
            Expected("method", "Shape.grow", (14, 14), None),
            Expected("function", "sub", (16, 16), None),
            Expected("function", "api.call", (17, 17), None),
            Expected("function", "api.other", (17, 17), None),
            Expected("function", "hidden", (18, 18), None),
        ],
    ),
    "typescript": (
        """
        /** A service. */
        @Injectable()
        export class Service<T> {
          private a = 1;

          /** Gets. */
          @Get('/x')
          async get(id: string): Promise<void> {
            return;
          }
          abstract later(): void;
        }
        export default function () { return 1 }
        interface Options { a: string; b(): void }
        namespace Inner { export function f(): void {} }
        """,
        [
            Expected("class", "Service", (1, 4), "A service."),
            Expected("method", "Service.get", (6, 10), "Gets."),
            Expected("function", "default", (13, 13), None),
            Expected("class", "Options", (14, 14), None),
            Expected("function", "Inner.f", (15, 15), None),
        ],
    ),
    "tsx": (
        """
        export const Button = memo(forwardRef((props: Props, ref) => {
          const click = () => props.onClick();
          return <button onClick={click}/>;
        }));
        """,
        [Expected("function", "Button", (1, 4), None)],
    ),
    "go": (
        """
        package a

        // Stack is a stack.
        type Stack[T any] struct { items []T }

        //go:noinline
        // Push adds
        // an item.
        func (s *Stack[T]) Push(item T) { s.items = append(s.items, item) }

        func New() *Stack { return nil }
        """,
        [
            Expected("class", "Stack", (3, 4), "Stack is a stack."),
            Expected("method", "Stack.Push", (6, 9), "Push adds\nan item."),
            Expected("function", "New", (11, 11), None),
        ],
    ),
    "rust": (
        """
        /// A point
        /// in a plane.
        #[derive(Debug)]
        pub struct Point<T> { x: T }

        impl<T> fmt::Display for Point<T> {
            /// Shows it.
            #[inline]
            fn fmt(&self) -> u8 { 1 }
        }
        trait Area { fn area(&self) -> f32; fn twice(&self) -> f32 { 2.0 * self.area() } }
        mod inner {
            // only a remark
            pub async fn run() {}
        }
        """,
        [
            Expected("class", "Point", (1, 4), "A point\nin a plane."),
            Expected("method", "Point::fmt", (7, 9), "Shows it."),
            Expected("method", "Area::twice", (11, 11), None),
            Expected("function", "inner::run", (13, 14), None),
        ],
    ),
    "java": (
        """
        package a;
        public class Shop<T> extends Base {
          private int a;
          private int b;
          /**
           * Sells.
           * @return the price
           */
          @Override public <U> int sell(U a) { return 1; }
          Shop() {}
          abstract void later();
          enum State { OPEN; boolean isOpen() { return true; } }
        }
        interface Till { void open(); }
        """,
        [
            Expected("class", "Shop", (2, 4), None),
            Expected("method", "Shop.sell", (5, 9), "Sells.\n@return the price"),
            Expected("method", "Shop.Shop", (10, 10), None),
            Expected("method", "Shop.State.isOpen", (12, 12), None),
            Expected("class", "Till", (14, 14), None),
        ],
    ),
    "c": (
        """
        /*
         * Copyright nobody
         */
        int first(void) { return 0; }

        /* Adds two
         * numbers. */
        static int
        add(a, b)
            int a;
        { return a + b; }
        int (*pointer(int a))(int) { return 0; }
        /** A node. */
        typedef struct { int a; } node_t;
        static struct node table[] = { { 1 } };
        #ifdef X
        char *guarded(void) { return 0; }
        #endif
        int declared(int a);
        """,
        [
            Expected("function", "first", (4, 4), None),
            Expected("function", "add", (6, 11), "Adds two\nnumbers."),
            Expected("function", "pointer", (12, 12), None),
            Expected("class", "node_t", (13, 14), "A node."),
            Expected("function", "guarded", (17, 17), None),
        ],
    ),
    "cpp": (
        """
        namespace a { namespace b::c {
        /// A box.
        template <typename T>
        class Box : public Base {
         public:
          /** Its size. */
          int size() const { return 1; }
          ~Box() = default;
          bool operator==(const Box& o) const { return true; }
          void operator()(int a) {}
        };
        }}
        //! Opens it.
        int* Box::open(int a) { return 0; }
        template<> void Box<std::vector<int>>::close() {}
        Box::operator bool() const { return 1; }
        extern "C" { int plain() { return 1; } }
        """,
        [
            Expected("class", "a::b::c::Box", (2, 5), "A box."),
            Expected("method", "a::b::c::Box::size", (6, 7), "Its size."),
            Expected("method", "a::b::c::Box::operator==", (9, 9), None),
            Expected("method", "a::b::c::Box::operator()", (10, 10), None),
            Expected("method", "Box::open", (13, 14), "Opens it."),
            Expected("method", "Box::close", (15, 15), None),
            Expected("method", "Box::operator bool", (16, 16), None),
            Expected("function", "plain", (17, 17), None),
        ],
    ),
    "csharp": (
        """
        namespace A.B {
          public class Shop : Base {
            /// <summary>
            /// Sells, see <see cref="Till"/>.
            /// </summary>
            [Test]
            public int Sell<T>(int a) { return 1; }
            public static Shop operator +(Shop a, Shop b) => a;
          }
          interface ITill { void Open(); }
        }
        """,
        [
            Expected("method", "A.B.Shop.Sell", (3, 7), "Sells, see Till."),
            Expected("method", "A.B.Shop.operator+", (8, 8), None),
            Expected("class", "A.B.ITill", (10, 10), None),
        ],
    ),
    "ruby": (
        """
        # frozen_string_literal: true
        module Shop
          # A till.
          class Till < Base
            # Opens it,
            # slowly.
            def open(a)
              1
            end

            def self.build; end
            class << self
              def hidden; end
            end
          end
        end
        """,
        [
            Expected("class", "Shop.Till", (3, 4), "A till."),
            Expected("method", "Shop.Till.open", (5, 9), "Opens it,\nslowly."),
            Expected("method", "Shop.Till.build", (11, 11), None),
            Expected("method", "Shop.Till.hidden", (13, 13), None),
        ],
    ),
    "php": (
        """
        <?php
        /** Adds. */
        #[Pure]
        function add($a) { return $a; }
        class Shop {
          /** Sells. */
          public function sell() { return 1; }
        }
        interface Till { public function open(); }
        """,
        [
            Expected("function", "add", (2, 4), "Adds."),
            Expected("method", "Shop::sell", (6, 7), "Sells."),
            Expected("class", "Till", (9, 9), None),
        ],
    ),
}


def test_every_language_has_a_snippet() -> None:
    assert set(_SNIPPETS) == set(BY_NAME) == {language.name for language in LANGUAGES}


@pytest.mark.parametrize("language", _SNIPPETS)
def test_definitions_of_each_language(language: str) -> None:
    source, expected = _SNIPPETS[language]
    chunked = _cut(language, source)
    assert chunked.error_lines == ()
    found = [Expected(c.kind, c.qualified, (c.start_line, c.end_line), c.docstring) for c in chunked.chunks]
    assert found == expected
    for chunk in chunked.chunks:
        assert chunk.language == language
        assert chunk.qualified.endswith(chunk.symbol)
        assert chunk.symbol


@pytest.mark.parametrize("language", _SNIPPETS)
def test_content_is_its_lines_and_body_lacks_the_documentation(language: str) -> None:
    source, _ = _SNIPPETS[language]
    lines = textwrap.dedent(source).lstrip("\n").split("\n")
    for chunk in _cut(language, source).chunks:
        part = "\n".join(lines[chunk.start_line - 1 : chunk.end_line])
        assert chunk.content in textwrap.dedent(part)
        if chunk.docstring is None:
            assert chunk.body == chunk.content
        else:
            assert chunk.docstring.split("\n")[0] not in chunk.body
            assert chunk.symbol.removeprefix("operator") in chunk.body


def _only(chunked: Chunked) -> Chunk:
    (chunk,) = chunked.chunks
    return chunk


@pytest.mark.parametrize(
    ("source", "body"),
    [
        ('def f():\n    """Doc."""\n\n    return 1', "def f():\n    return 1"),
        ('def f(): "Doc."; return 1', "def f(): return 1"),
        ('def f():\n    """Doc."""', "def f():\n    ..."),
        ('def f():\n    ("Doc."\n     " More.")\n    return 1', "def f():\n    return 1"),
        ('def f():\n    # why\n    """Doc."""\n    x = """no doc"""', 'def f():\n    # why\n    x = """no doc"""'),
    ],
)
def test_python_body_stays_python_without_its_docstring(source: str, body: str) -> None:
    chunk = _only(_cut("python", source))
    assert chunk.docstring is not None
    assert chunk.docstring.startswith("Doc.")
    assert chunk.body == body
    ast.parse(chunk.body)


@pytest.mark.parametrize("literal", ['f"a {b}"', 'b"bytes"', '""', '"   "', "1", '"a" + "b"'])
def test_what_is_no_docstring_stays_in_the_body(literal: str) -> None:
    chunk = _only(_cut("python", f"def f():\n    {literal}\n    return 1"))
    assert chunk.docstring is None
    assert literal in chunk.body


def test_docstring_that_text_cannot_hold_is_kept_as_written() -> None:
    chunk = _only(_cut("python", 'def f():\n    "Ends at \\0, or \\ud800."\n    return 1'))
    assert chunk.docstring == "Ends at \\0, or \\ud800."


def test_a_broken_function_is_left_out_and_its_neighbours_stay() -> None:
    chunked = _cut("python", "def one():\n    return 1\n\ndef broken(:\n    pass\n\ndef two():\n    return 2\n")
    assert [chunk.symbol for chunk in chunked.chunks] == ["one", "two"]
    assert chunked.error_lines == (4,)
    assert chunked.left_out == ("broken",)


def test_macros_do_not_cost_a_function_of_c() -> None:
    chunked = _cut("c", "int f(void) { BEGIN_THREADS call(); END_THREADS return 0; }\n")
    assert [chunk.symbol for chunk in chunked.chunks] == ["f"]
    assert chunked.error_lines == (1,)


def test_the_same_method_indented_elsewhere_is_the_same_chunk() -> None:
    flat = _only(_cut("python", "def f(self):\n    return 1\n"))
    deep = _cut("python", "class A:\n    if x:\n        def f(self):\n            return 1\n").chunks[-1]
    assert flat.content == deep.content
    assert flat.sha256 != deep.sha256  # a method is another kind
    assert deep.kind == "method"


def test_a_file_without_definitions_is_cut_into_windows() -> None:
    chunk = _only(_cut("python", "import os\n\nprint(os.name)\n"))
    assert (chunk.kind, chunk.start_line, chunk.end_line) == ("window", 1, 3)


def test_a_definition_too_long_for_a_chunk_is_cut_into_windows() -> None:
    body = "".join(f"    value_{number} = compute({number})\n" for number in range(1500))
    chunks = _cut("python", f"x = 1\ndef long():\n{body}").chunks
    assert len(chunks) > 10
    assert {(chunk.kind, chunk.qualified) for chunk in chunks} == {("window", "long")}
    assert chunks[0].start_line == 2
    assert chunks[-1].end_line == 1502
    assert max(len(chunk.content) for chunk in chunks) <= MAX_CHUNK_CHARACTERS


@pytest.mark.parametrize(("language", "source"), [
    ("python", "x = " + "(" * 5000 + ")" * 5000),
    ("javascript", "const x = " + "[" * 20_000 + "]" * 20_000),
    ("javascript", "var x = " + "1+" * 20_000 + "1;"),
    ("c", "{" * 5000),
])  # fmt: skip
def test_deep_nesting_does_not_exhaust_the_stack(language: str, source: str) -> None:
    assert _cut(language, source).chunks


def _expected_functions(text: str) -> dict[tuple[int, int, str, str], str | None]:
    """Functions as Python's own parser has them: first line with decorators, last line, name, kind → docstring."""
    found: dict[tuple[int, int, str, str], str | None] = {}

    def visit(node: ast.AST, path: tuple[str, ...], in_class: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
                docstring = ast.get_docstring(child)
                kind = "method" if in_class else "function"
                found[first, child.end_lineno or 0, ".".join((*path, child.name)), kind] = (
                    docstring if docstring and docstring.strip() else None
                )
            elif isinstance(child, ast.ClassDef):
                visit(child, (*path, child.name), True)
            else:
                visit(child, path, in_class)

    visit(ast.parse(text), (), False)
    return found


def _without_trailing_comments(lines: list[str], first: int, last: int) -> int:
    while last > first and (not lines[last - 1].strip() or lines[last - 1].lstrip().startswith("#")):
        last -= 1
    return last


# 5 MB of real code in every style; the whole of the standard library agrees too (30 MB, 50,000 functions), but for one
# file that tests the compiler with text no grammar reads.
_PACKAGES = ("*.py", "asyncio/*.py", "email/*.py", "unittest/*.py", "xml/**/*.py", "concurrent/**/*.py", "json/*.py")


def test_python_functions_agree_with_pythons_own_parser() -> None:
    root = Path(sysconfig.get_paths()["stdlib"])
    compared = 0
    for path in sorted(path for pattern in _PACKAGES for path in root.glob(pattern)):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # one that declares another encoding
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes
            expected = _expected_functions(text)
        lines = text.split("\n")
        chunks = chunk_definitions(text, BY_NAME["python"]).chunks
        big = {chunk.qualified for chunk in chunks if chunk.kind == "window" and chunk.symbol}
        found = {
            # the syntax tree of Python ends before comments that close a block; for a reader they are a part of it
            (
                c.start_line,
                _without_trailing_comments(lines, c.start_line, c.end_line),
                c.qualified,
                c.kind,
            ): c.docstring
            for c in chunks
            if c.kind in ("function", "method")
        }
        assert found == {
            (first, _without_trailing_comments(lines, first, last), name, kind): docstring
            for (first, last, name, kind), docstring in expected.items()
            if name not in big
        }, path
        for chunk in chunks:
            if chunk.docstring and chunk.kind != "class":
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    (node,) = ast.parse(chunk.body).body
                assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                assert ast.get_docstring(node) is None, (path, chunk.qualified)
        compared += len(found)
    assert compared > 5000
