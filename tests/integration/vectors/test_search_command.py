"""`pgembed search` in its modes, by example and explained, as a person or a script runs it."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import Result
from typer.testing import CliRunner

from pgembed.cli.app import app
from pgembed.corpus.ingest import ingest
from pgembed.errors import SearchError
from pgembed.mining.pairs import find_pairs
from pgembed.vectors.reindex import reindex

Run = Callable[..., Result]
_CODE = '''def open_socket(host, port, timeout):
    """Dial a peer and wait."""
    connection = dial(host, port)
    connection.settimeout(timeout)
    return connection


class Basket:
    def total(self):
        return sum(item.price for item in self.items)
'''
_ANSI = "\x1b[31mred\x1b[0m \x07 \u202e"


@pytest.fixture
def run(conn: psycopg.Connection, database_url: str, tmp_path: Path) -> Run:
    """A function that runs `pgembed` on a database with a few functions, two of them near-duplicates."""
    code = tmp_path / "code"
    (code / "net").mkdir(parents=True)
    (code / "net" / "dial.py").write_text(_CODE)
    (code / "net" / "copy.py").write_text(_CODE.replace("return connection", "return connection or quit"))
    (code / "ansi.py").write_text(f"def shout():\n    # loud {_ANSI} [bold]text[/bold]\n    return 'loud'\n")
    ingest(conn, code, name="shop")
    find_pairs(conn)

    def run_command(*arguments: object) -> Result:
        return CliRunner().invoke(app, [*map(str, arguments), "--dsn", database_url])

    return run_command


def _json(result: Result) -> Any:
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def test_words_find_without_a_generation_and_copies_fold(run: Run) -> None:
    hits = _json(run("search", "dial a peer", "--mode", "lexical", "--json"))
    assert [hit["path"] for hit in hits] == ["net/copy.py"] or [hit["path"] for hit in hits] == ["net/dial.py"]
    (hit,) = hits
    assert (hit["copies"], hit["vector_rank"], hit["lexical_rank"]) == (1, None, 1)
    (copy,) = hit["also"]
    assert {copy["path"], hit["path"]} == {"net/dial.py", "net/copy.py"}
    assert copy["jaccard"] >= 0.8
    both = _json(run("search", "dial a peer", "--mode", "lexical", "--no-collapse", "--json"))
    assert {one["path"] for one in both} == {"net/dial.py", "net/copy.py"}
    shown = run("search", "dial a peer", "--mode", "lexical")
    assert shown.exit_code == 0
    assert f"also {copy['path']}:1-5" in shown.stdout
    assert "No chunk has these words." in run("search", "xyzzy", "--mode", "lexical").stdout
    # nothing is active, which only the other modes need
    missing = run("search", "dial")
    assert isinstance(missing.exception, SearchError)
    assert "--mode lexical" in str(missing.exception.remedy)


def test_symbols_rise_and_modes_differ_in_json(run: Run, database_url: str, tiny_encoder: Path) -> None:
    reindex(database_url, tiny_encoder, activate=True)
    for arguments in (("--mode", "hybrid"), ()):
        hits = _json(run("search", "Basket.total", *arguments, "--json"))
        assert (hits[0]["symbol"], hits[0]["symbol_match"]) == ("Basket.total", True)
        assert hits[0]["vector_rank"] is not None
        assert hits[0]["lexical_rank"] is not None
    vectors = _json(run("search", "Basket.total", "--mode", "vector", "--json"))
    assert {hit["lexical_rank"] for hit in vectors} == {None}
    assert [hit["score"] for hit in vectors] == [hit["vector_score"] for hit in vectors]


def test_an_explanation_shows_parts_plans_and_milliseconds(run: Run, database_url: str, tiny_encoder: Path) -> None:
    reindex(database_url, tiny_encoder, activate=True)
    told = _json(run("search", "dial a peer", "--explain", "--json"))
    assert told["hits"] == _json(run("search", "dial a peer", "--json"))
    explanation = told["explanation"]
    assert {term["token"] for term in explanation["terms"]} == {"dial", "a", "peer"}
    assert explanation["milliseconds"].keys() == {
        "loading the encoder", "embedding the text", "vectors", "words", "all of it",
    }  # fmt: skip
    shown = run("search", "dial a peer", "--explain").stdout
    assert re.search(r"vectors: rank \d+, cosine -?0\.\d{3}", shown)
    assert re.search(r"words: rank \d+, BM25 \d+\.\d\d \(idf: .*dial \d\.\d", shown)
    assert "Plan of the search by words:" in shown
    assert re.search(r"Milliseconds: loading the encoder \d+\.\d, ", shown)
    assert (
        max(len(line) for line in shown.split("Plan of the search", 1)[1].split("Milliseconds")[0].splitlines()) <= 80
    )
    words = _json(run("search", "dial", "--mode", "lexical", "--explain", "--json"))["explanation"]
    assert words["plans"].keys() == {"words"}
    assert words["milliseconds"].keys() == {"words", "all of it"}


def test_an_example_is_named_by_its_place(
    run: Run, database_url: str, tiny_encoder: Path, conn: psycopg.Connection
) -> None:
    reindex(database_url, tiny_encoder, activate=True)
    hits = _json(run("search", "--like", "net/dial.py:3", "--json"))
    assert hits
    assert "open_socket" not in {hit["symbol"] for hit in hits}  # neither itself nor its copy
    assert [hit["vector_rank"] is not None for hit in hits] == [True] * len(hits)
    nothing = run("search", "--like", "dial.py:6")
    assert isinstance(nothing.exception, SearchError)
    assert "net/dial.py:1-5 open_socket [shop]" in str(nothing.exception.remedy)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("x", "--like", "a.py:1"),
        ("--like", "a.py:1", "--mode", "lexical"),
        ("x", "--mode", "lexical", "--generation", "1"),
        ("x", "--mode", "sideways"),
    ],
)
def test_wrong_usage_is_exit_code_two(run: Run, arguments: tuple[str, ...]) -> None:
    assert run("search", *arguments).exit_code == 2


def test_code_cannot_command_the_terminal(run: Run) -> None:
    shown = run("search", "loud", "--mode", "lexical").stdout
    assert "\\x1b[31mred" in shown
    assert "[bold]text[/bold]" in shown
    assert not set(shown) & {"\x1b", "\x07", "\u202e"}


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


@pytest.mark.parametrize("arguments", [("dial", "--mode", "lexical"), ("--like", "net/dial.py:3")])
def test_words_and_examples_load_no_engine(
    run: Run, database_url: str, tiny_encoder: Path, arguments: tuple[str, ...]
) -> None:
    reindex(database_url, tiny_encoder, activate=True)
    command = [sys.executable, "-c", _RUN, "search", *arguments, "--dsn", database_url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = set(json.loads(done.stdout.splitlines()[-1]))
    assert "pgembed.vectors.search" in seen
    assert seen & {"onnxruntime", "tokenizers", "torch", "transformers", "sqlalchemy", "alembic"} == set()
