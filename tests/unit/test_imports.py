"""Imports point one way, and the heavy ones stay where they are used."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from fixtures_chunks import Chunk, add_chunks

import pgembed
from pgembed.vectors.reindex import reindex

PACKAGE = Path(pgembed.__file__).parent

# A part may import the parts of the lines below its own.
LAYERS = (
    {"__main__"},
    {"cli"},
    {"serving"},
    {"overview"},
    {"corpus", "mining", "training", "vectors"},
    {"evaluation"},
    {"encoders", "db"},
    {"plugins"},
    {"config", "errors", "progress", "tokens", "__init__"},
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}

# Importer and imported of one line, each with its reason.
ALLOWED_BESIDE = {
    ("encoders", "db"): "encoders/registry.py puts an encoder into its row; db knows nothing of encoders",
    ("config", "errors"): "an environment variable that cannot be used is an error of the tree",
}

HEAVY = {"torch", "transformers", "safetensors", "onnx"}


def imports(source: str) -> Iterator[str]:
    """Yield what `source` imports, wherever in it: `a.b` for `import a.b`, `a.b.c` for `from a.b import c`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that they can be searched for"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(module: str) -> str:
    """Return the part of the package that a dotted name below `pgembed` is in; its root is `__init__`."""
    name = module.split(".")[1] if "." in module else ""
    return name if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file() else "__init__"


def against_the_direction(part: str, source: str) -> list[str]:
    """Return what a module of `part` imports of pgembed and may not."""
    return [
        f"{part} imports {module}"
        for module in imports(source)
        if module.split(".")[0] == "pgembed"
        and (other := part_of(module)) != part
        and LEVEL[other] <= LEVEL[part]
        and (part, other) not in ALLOWED_BESIDE
    ]


MODULES = {
    path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))
}


def part_of_file(name: str) -> str:
    return name.split("/")[0].removesuffix(".py")


def test_every_part_has_its_place_in_the_order() -> None:
    assert {part_of_file(name) for name in MODULES} <= set(LEVEL)


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_one_way(name: str) -> None:
    assert against_the_direction(part_of_file(name), MODULES[name]) == []


@pytest.mark.parametrize(("importer", "imported"), ALLOWED_BESIDE)
def test_an_exception_is_still_needed(importer: str, imported: str) -> None:
    sources = [source for name, source in MODULES.items() if part_of_file(name) == importer]
    assert any(part_of(module) == imported for source in sources for module in imports(source))


@pytest.mark.parametrize("name", MODULES)
def test_only_training_imports_heavy_libraries(name: str) -> None:
    if part_of_file(name) != "training":
        assert {module.split(".")[0] for module in imports(MODULES[name])} & HEAVY == set()


def test_training_is_where_they_are() -> None:
    used = {
        module.split(".")[0]
        for name, source in MODULES.items()
        if part_of_file(name) == "training"
        for module in imports(source)
    }
    assert {"torch", "transformers", "safetensors"} <= used


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("mining", "from pgembed.corpus.parse import parse_file"),
        ("vectors", "def later():\n    import pgembed.training.export"),
        ("db", "from pgembed import cli"),
        ("serving", "from pgembed.cli.common import printable"),
        ("vectors", "from pgembed.serving.models import Models"),
        ("db", "import pgembed.encoders.spec as spec"),
        ("evaluation", "from pgembed.vectors import search"),
        ("errors", "if TYPE_CHECKING:\n    from pgembed.config import Settings"),
    ],
)
def test_the_check_sees_imports_in_every_form(part: str, source: str) -> None:
    assert len(against_the_direction(part, source)) == 1


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("cli", "from pgembed.training import require_torch"),
        ("cli", "from pgembed.serving.app import make_app"),
        ("serving", "from pgembed.vectors.search import find"),
        ("vectors", "from pgembed.vectors import table"),
        ("training", "from pgembed.errors import TrainingError"),
        ("training", "from pgembed import __version__"),
        ("corpus", "import pgembedded.cli"),
    ],
)
def test_the_check_lets_the_others_pass(part: str, source: str) -> None:
    assert against_the_direction(part, source) == []


_RUN = """
import json, sys
from pgembed.cli.app import main
sys.argv = ["pgembed", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(sorted(sys.modules)))
"""


def modules_after(*arguments: str) -> set[str]:
    """Run pgembed in a process of its own and return the modules that it has imported by its end."""
    done = subprocess.run([sys.executable, "-c", _RUN, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("command", ["search", "migrate", "train", "serve"])
def test_help_starts_without_an_engine(command: str) -> None:
    seen = modules_after(command, "--help")
    assert "pgembed.cli.search" in seen
    assert seen & {*HEAVY, "onnxruntime", "tokenizers", "sqlalchemy", "alembic", "fastapi", "uvicorn"} == set()


def test_a_whole_search_runs_without_torch(conn: psycopg.Connection, database_url: str, tiny_encoder: Path) -> None:
    words = ["open", "a", "socket", "read", "line"]
    add_chunks(conn, [Chunk(frozenset(words[n:]), body=f"def f{n}():\n    return {words[n:]}") for n in range(5)])
    reindex(database_url, tiny_encoder, activate=True)
    seen = modules_after("search", "open a socket", "--k", "3", "--dsn", database_url)
    assert {"pgembed.vectors.search", "onnxruntime", "tokenizers"} <= seen
    assert seen & HEAVY == set()
