"""Real functions for the benchmarks: every function of the standard library and of what is installed beside it."""

import ast
import hashlib
import pickle
import random
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from pgembed.tokens import tokens


@dataclass(frozen=True, slots=True)
class Function:
    """One distinct function, at the first place where it stands."""

    source: str
    path: str
    start_line: int
    end_line: int
    symbol: str
    content: str
    docstring: str | None
    body: str
    tokens: frozenset[str]

    @property
    def sha256(self) -> bytes:
        """Hash of language, kind and content, as an ingest computes it."""
        return hashlib.sha256(b"python\0function\0" + self.content.encode("utf-8", "replace")).digest()


def read_functions(count: int, *, seed: int = 0, only_standard: bool = False) -> list[Function]:
    """Return `count` distinct functions, drawn at random in an order that the seed fixes: samples are nested.

    With `only_standard` they are the standard library's, which is read in seconds.
    """
    standard = Path(sysconfig.get_path("stdlib"))
    installed = Path(sysconfig.get_path("purelib"))
    found: dict[bytes, Function] = {}
    for root in (standard,) if only_standard else (standard, installed):
        for file in sorted(root.rglob("*.py")):
            parts = file.relative_to(root).parts
            if "site-packages" not in parts and "_vendor" not in parts:
                source = "stdlib" if root == standard else parts[0]
                for function in _functions(file, source, "/".join(parts)):
                    found.setdefault(function.sha256, function)
    functions = sorted(found.values(), key=lambda f: f.sha256)
    random.Random(seed).shuffle(functions)  # noqa: S311 - a sample, not a secret
    if len(functions) < count:
        raise SystemExit(f"Only {len(functions):,} functions are installed here, {count:,} were asked for.")
    return functions[:count]


def cached_functions(cache: Path | None, count: int) -> list[Function]:
    """Return `read_functions(count)`, from the file `cache` where an earlier run has left enough there."""
    if cache is not None and cache.exists():
        functions: list[Function] = pickle.loads(cache.read_bytes())  # noqa: S301 - a file these scripts wrote
        if len(functions) >= count:
            return functions[:count]
    functions = read_functions(count)
    if cache is not None:
        cache.write_bytes(pickle.dumps(functions))
    return functions


def _functions(file: Path, source: str, path: str) -> Iterator[Function]:
    try:
        text = file.read_text(encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, UnicodeDecodeError, ValueError, OSError, RecursionError):
        return
    if "\0" in text:
        return
    lines = text.split("\n")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            content = "\n".join(lines[node.lineno - 1 : node.end_lineno])
            try:
                docstring = ast.get_docstring(node)
                content.encode()
            except UnicodeEncodeError:
                continue
            body = content
            if docstring:
                statement = node.body[0]
                last = statement.end_lineno or statement.lineno
                kept = lines[node.lineno - 1 : statement.lineno - 1] + lines[last : node.end_lineno]
                body = "\n".join(kept)
            if "\0" not in (docstring or ""):
                yield Function(
                    source, path, node.lineno, node.end_lineno, node.name, content, docstring, body, tokens(body)
                )


def load(conn: psycopg.Connection, functions: list[Function]) -> None:
    """Put the functions into the tables of an empty database, as an ingest would."""
    documents: dict[str, int] = {}
    for function in functions:
        for token in function.tokens:
            documents[token] = documents.get(token, 0) + 1
    ids = {token: number for number, token in enumerate(sorted(documents), 1)}
    sources = {name: number for number, name in enumerate(sorted({f.source for f in functions}), 1)}
    with conn.transaction(), conn.cursor() as cursor:
        columns = "(id, name, root) OVERRIDING SYSTEM VALUE VALUES (%s, %s, '')"
        cursor.executemany(f"INSERT INTO pgembed.sources {columns}", [(n, name) for name, n in sources.items()])
        with cursor.copy(
            "COPY pgembed.source_files (source_id, path, sha256, size_bytes, modified_ns, chunker) FROM STDIN"
        ) as copy:
            for source, path in sorted({(f.source, f.path) for f in functions}):
                copy.write_row((sources[source], path, hashlib.sha256(path.encode()).digest(), 0, 0, "benchmark"))
        with cursor.copy("COPY pgembed.tokens (id, token, document_frequency) FROM STDIN") as copy:
            for token, number in ids.items():
                copy.write_row((number, token, documents[token]))
        with cursor.copy(
            "COPY pgembed.code_chunks (id, sha256, language, kind, symbol, content, docstring, body, token_ids,"
            " line_count) FROM STDIN"
        ) as copy:
            for number, f in enumerate(functions, 1):
                members = sorted(ids[token] for token in f.tokens)
                texts = (f.symbol, f.content, f.docstring, f.body)
                copy.write_row((number, f.sha256, "python", "function", *texts, members, f.content.count("\n") + 1))
        with cursor.copy(
            "COPY pgembed.chunk_locations (chunk_id, source_id, path, start_line, end_line, symbol) FROM STDIN"
        ) as copy:
            for number, f in enumerate(functions, 1):
                copy.write_row((number, sources[f.source], f.path, f.start_line, f.end_line, f.symbol))
    conn.execute("ANALYZE pgembed.code_chunks, pgembed.chunk_locations, pgembed.tokens, pgembed.source_files")
