"""What the chunker knows of each language: a table, from which one piece of code reads them all.

To add a language: depend on its tree-sitter grammar, add a row, and add a snippet to the tests.
"""

import importlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Parser


@dataclass(frozen=True, kw_only=True, eq=False)
class Language:
    """Grammar and node types of one language."""

    name: str
    extensions: tuple[str, ...]
    grammar: tuple[str, str]
    """Module and function that give the grammar."""
    functions: frozenset[str]
    """Definitions that are a chunk each: functions and methods."""
    values: frozenset[str] = frozenset()
    """Function values: a chunk where something names them (`const f = () => …`), else part of what surrounds them."""
    namers: frozenset[str] = frozenset()
    """Nodes that give their name to the function value inside: declarators, assignments, properties."""
    types: frozenset[str] = frozenset()
    """Nodes that make the functions inside methods, and lend them their name: classes, traits, interfaces."""
    scopes: frozenset[str] = frozenset()
    """Nodes that only lend their name: namespaces and modules."""
    wrappers: frozenset[str] = frozenset()
    """Nodes around a definition that belong to it: decorators, exports, templates, the declaration of a value."""
    skipped: frozenset[str] = frozenset()
    """Nodes that hold no definition, however large: tables of data, imports."""
    comments: frozenset[str] = frozenset({"comment"})
    attributes: frozenset[str] = frozenset()
    """Nodes before a definition that belong to it, and between which a doc comment may stand."""
    doc_openings: tuple[str, ...] = ("/**", "/*!", "///", "//!")
    """How a comment begins that documents what follows. Others are kept with the code, as a part of it."""
    docstring_inside: bool = False
    """Whether the documentation is the first statement of the body (Python) rather than a comment before it."""
    preprocessed: bool = False
    """Whether macros make sound code look broken: then a definition with an error inside is kept."""
    separator: str = "."
    """What stands between the parts of a qualified name."""

    @property
    def parser(self) -> "Parser":
        """A parser; one a process and language serves all files."""
        return _parser(*self.grammar)


@cache
def _parser(module: str, function: str) -> "Parser":
    import tree_sitter

    return tree_sitter.Parser(tree_sitter.Language(getattr(importlib.import_module(module), function)()))


def _types(names: str) -> frozenset[str]:
    return frozenset(names.split())


_ANY_COMMENT = ("/", "#")


def _script(name: str, extensions: tuple[str, ...], grammar: tuple[str, str]) -> Language:
    """JavaScript and its typed relatives."""
    return Language(
        name=name,
        extensions=extensions,
        grammar=grammar,
        functions=_types("function_declaration generator_function_declaration method_definition"),
        values=_types("arrow_function function_expression generator_function"),
        namers=_types("variable_declarator assignment_expression pair field_definition public_field_definition"),
        types=_types("class_declaration class abstract_class_declaration interface_declaration enum_declaration"),
        scopes=_types("internal_module module"),
        wrappers=_types("export_statement lexical_declaration variable_declaration expression_statement"),
        skipped=_types("import_statement"),
        attributes=_types("decorator"),
    )


LANGUAGES: tuple[Language, ...] = (
    Language(
        name="python", extensions=(".py", ".pyi", ".pyw"), grammar=("tree_sitter_python", "language"),
        functions=_types("function_definition"), types=_types("class_definition"),
        wrappers=_types("decorated_definition"), skipped=_types("expression_statement return_statement"),
        doc_openings=(), docstring_inside=True,
    ),
    _script("javascript", (".js", ".mjs", ".cjs", ".jsx"), ("tree_sitter_javascript", "language")),
    _script("typescript", (".ts", ".mts", ".cts"), ("tree_sitter_typescript", "language_typescript")),
    _script("tsx", (".tsx",), ("tree_sitter_typescript", "language_tsx")),
    Language(
        name="go", extensions=(".go",), grammar=("tree_sitter_go", "language"),
        functions=_types("function_declaration method_declaration"), types=_types("type_spec"),
        wrappers=_types("type_declaration"),
        skipped=_types("import_declaration var_declaration const_declaration"),
        doc_openings=_ANY_COMMENT,
    ),
    Language(
        name="rust", extensions=(".rs",), grammar=("tree_sitter_rust", "language"),
        functions=_types("function_item macro_definition"),
        types=_types("impl_item trait_item struct_item enum_item union_item"), scopes=_types("mod_item"),
        skipped=_types("macro_invocation const_item static_item use_declaration"),
        comments=_types("line_comment block_comment"), attributes=_types("attribute_item"),
        doc_openings=("/**", "///"), separator="::",
    ),
    Language(
        name="java", extensions=(".java",), grammar=("tree_sitter_java", "language"),
        functions=_types("method_declaration constructor_declaration compact_constructor_declaration"),
        types=_types("class_declaration interface_declaration enum_declaration record_declaration "
                     "annotation_type_declaration"),
        skipped=_types("array_initializer import_declaration"), comments=_types("line_comment block_comment"),
    ),
    Language(
        name="c", extensions=(".c", ".h"), grammar=("tree_sitter_c", "language"),
        functions=_types("function_definition"), types=_types("struct_specifier union_specifier enum_specifier"),
        wrappers=_types("type_definition"), skipped=_types("initializer_list declaration"),
        doc_openings=_ANY_COMMENT, preprocessed=True,
    ),
    Language(
        name="cpp", extensions=(".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx", ".ipp", ".cu", ".cuh"),
        grammar=("tree_sitter_cpp", "language"), functions=_types("function_definition"),
        types=_types("class_specifier struct_specifier union_specifier enum_specifier"),
        scopes=_types("namespace_definition"), wrappers=_types("template_declaration type_definition"),
        skipped=_types("initializer_list declaration"), doc_openings=_ANY_COMMENT, preprocessed=True, separator="::",
    ),
    Language(
        name="csharp", extensions=(".cs",), grammar=("tree_sitter_c_sharp", "language"),
        functions=_types("method_declaration constructor_declaration destructor_declaration operator_declaration "
                         "conversion_operator_declaration local_function_statement"),
        types=_types("class_declaration interface_declaration struct_declaration record_declaration enum_declaration"),
        scopes=_types("namespace_declaration"), skipped=_types("initializer_expression using_directive"),
        preprocessed=True,
    ),
    Language(
        name="ruby", extensions=(".rb", ".rake", ".gemspec"), grammar=("tree_sitter_ruby", "language"),
        functions=_types("method singleton_method"), types=_types("class module"),
        skipped=_types("array"), doc_openings=_ANY_COMMENT,
    ),
    Language(
        name="php", extensions=(".php",), grammar=("tree_sitter_php", "language_php"),
        functions=_types("function_definition method_declaration"),
        types=_types("class_declaration interface_declaration trait_declaration enum_declaration"),
        skipped=_types("array_creation_expression"), separator="::",
    ),
)  # fmt: skip

BY_NAME = {language.name: language for language in LANGUAGES}
