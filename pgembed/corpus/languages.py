"""What the chunker knows of each language: a table, from which one piece of code reads them all."""

import importlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Parser


@dataclass(frozen=True)
class Language:
    """Grammar and node types of one language."""

    name: str
    extensions: tuple[str, ...]
    grammar: tuple[str, str]
    """Module and function that give the grammar."""
    functions: frozenset[str]
    """Node types that are a chunk: functions and methods."""
    containers: frozenset[str]
    """Node types that give methods a qualified name; one without methods is a chunk of kind class itself."""
    wrappers: frozenset[str] = field(default_factory=frozenset)
    """Node types around a definition that belong to it: decorators, exports, templates."""
    comments: frozenset[str] = frozenset({"comment"})
    between: frozenset[str] = field(default_factory=frozenset)
    """Node types that may stand between a doc comment and its definition (attributes)."""
    docstring_inside: bool = False
    """Whether the documentation is the first statement of the body (Python) rather than a comment before it."""

    @cache  # noqa: B019 - a dozen frozen objects that live as long as the program
    def parser(self) -> "Parser":
        """Return a parser; one a process serves all files."""
        import tree_sitter

        module, function = self.grammar
        return tree_sitter.Parser(tree_sitter.Language(getattr(importlib.import_module(module), function)()))


def _types(names: str) -> frozenset[str]:
    return frozenset(names.split())


_SCRIPT_FUNCTIONS = _types(
    "function_declaration generator_function_declaration method_definition arrow_function function_expression"
)
_SCRIPT_CONTAINERS = _types("class_declaration class abstract_class_declaration interface_declaration")
_C_COMMENTS = _types("comment")

LANGUAGES: tuple[Language, ...] = (
    Language(
        "python", (".py", ".pyi", ".pyw"), ("tree_sitter_python", "language"),
        functions=_types("function_definition"), containers=_types("class_definition"),
        wrappers=_types("decorated_definition"), docstring_inside=True,
    ),
    Language(
        "javascript", (".js", ".mjs", ".cjs", ".jsx"), ("tree_sitter_javascript", "language"),
        functions=_SCRIPT_FUNCTIONS, containers=_SCRIPT_CONTAINERS, wrappers=_types("export_statement"),
    ),
    Language(
        "typescript", (".ts", ".mts", ".cts"), ("tree_sitter_typescript", "language_typescript"),
        functions=_SCRIPT_FUNCTIONS, containers=_SCRIPT_CONTAINERS, wrappers=_types("export_statement"),
    ),
    Language(
        "tsx", (".tsx",), ("tree_sitter_typescript", "language_tsx"),
        functions=_SCRIPT_FUNCTIONS, containers=_SCRIPT_CONTAINERS, wrappers=_types("export_statement"),
    ),
    Language(
        "go", (".go",), ("tree_sitter_go", "language"),
        functions=_types("function_declaration method_declaration"), containers=_types("type_declaration"),
    ),
    Language(
        "rust", (".rs",), ("tree_sitter_rust", "language"),
        functions=_types("function_item"),
        containers=_types("impl_item trait_item mod_item struct_item enum_item"),
        comments=_types("line_comment block_comment"), between=_types("attribute_item"),
    ),
    Language(
        "java", (".java",), ("tree_sitter_java", "language"),
        functions=_types("method_declaration constructor_declaration compact_constructor_declaration"),
        containers=_types("class_declaration interface_declaration enum_declaration record_declaration"),
        comments=_types("line_comment block_comment"),
    ),
    Language(
        "c", (".c", ".h"), ("tree_sitter_c", "language"),
        functions=_types("function_definition"), containers=_types("struct_specifier"), comments=_C_COMMENTS,
    ),
    Language(
        "cpp", (".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx", ".cu", ".cuh"), ("tree_sitter_cpp", "language"),
        functions=_types("function_definition"),
        containers=_types("class_specifier struct_specifier namespace_definition"),
        wrappers=_types("template_declaration"), comments=_C_COMMENTS,
    ),
    Language(
        "csharp", (".cs",), ("tree_sitter_c_sharp", "language"),
        functions=_types("method_declaration constructor_declaration local_function_statement"),
        containers=_types(
            "class_declaration interface_declaration struct_declaration record_declaration namespace_declaration"
        ),
    ),
    Language(
        "ruby", (".rb",), ("tree_sitter_ruby", "language"),
        functions=_types("method singleton_method"), containers=_types("class module"),
    ),
    Language(
        "php", (".php",), ("tree_sitter_php", "language_php"),
        functions=_types("function_definition method_declaration"),
        containers=_types("class_declaration interface_declaration trait_declaration"),
    ),
)  # fmt: skip

_BY_EXTENSION = {extension: language for language in LANGUAGES for extension in language.extensions}

# Text that people search, without a grammar here: cut into windows of lines, named by its ending.
_PLAIN = {
    ".sql": "sql", ".sh": "shell", ".bash": "shell", ".zsh": "shell", ".ps1": "powershell", ".kt": "kotlin",
    ".swift": "swift", ".scala": "scala", ".lua": "lua", ".pl": "perl", ".pm": "perl", ".r": "r", ".jl": "julia",
    ".hs": "haskell", ".ml": "ocaml", ".ex": "elixir", ".exs": "elixir", ".erl": "erlang", ".clj": "clojure",
    ".dart": "dart", ".zig": "zig", ".nim": "nim", ".vue": "vue", ".svelte": "svelte", ".html": "html", ".css": "css",
    ".scss": "scss", ".md": "markdown", ".rst": "restructuredtext", ".txt": "text", ".toml": "toml", ".yaml": "yaml",
    ".yml": "yaml", ".cfg": "ini", ".ini": "ini", ".proto": "protobuf", ".graphql": "graphql", ".tf": "terraform",
    ".cmake": "cmake", ".mk": "make", ".bat": "batch", ".f90": "fortran", ".asm": "assembly", ".s": "assembly",
    ".m": "objective-c", ".mm": "objective-c", ".el": "lisp", ".lisp": "lisp", ".vim": "vim", ".tcl": "tcl",
}  # fmt: skip
_PLAIN_NAMES = {"makefile": "make", "dockerfile": "dockerfile", "rakefile": "ruby", "cmakelists.txt": "cmake"}


def language_of(path: str) -> Language | str | None:
    """Return what a file's name says: a language with a grammar, the name of one without, or None for neither."""
    name = PurePosixPath(path).name.lower()
    suffix = PurePosixPath(name).suffix
    return _BY_EXTENSION.get(suffix) or _PLAIN_NAMES.get(name) or _PLAIN.get(suffix)
