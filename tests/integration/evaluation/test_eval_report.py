"""`pgembed eval` of a generation: by language, its index, the gate's words, and the report as a file."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fixtures_cli import Outcome, pgembed

from pgembed.evaluation.lineage import Curve, read_lineage
from pgembed.vectors.reindex import reindex

AddChunk = Callable[..., int]
Run = Callable[..., Outcome]

_HOSTILE = "Close <script>alert('x')</script> & go on."


@pytest.fixture
def run(database_url: str, conn: psycopg.Connection, add_chunk: AddChunk, tiny_encoder: Path) -> Run:
    """A function that runs `pgembed eval` on twelve functions of two languages; their generation is active."""
    for number in range(12):
        docstring = _HOSTILE if number == 3 else f"Read the table number {number} from disk."
        identifier = add_chunk(f"def work{number}(x):\n    return read(x, {number})", docstring, symbol=f"work{number}")
        if number % 3 == 0:
            conn.execute("UPDATE pgembed.code_chunks SET language = 'go' WHERE id = %s", (identifier,))
    reindex(database_url, tiny_encoder, activate=True)
    return lambda *arguments: pgembed("eval", "--dsn", database_url, *map(str, arguments))


def _evaluation(outcome: Outcome) -> Any:
    assert outcome.code == 0, outcome.stderr
    return json.loads(outcome.stdout)["evaluations"][0]


def test_languages_and_the_index_are_measured_kept_and_not_measured_twice(run: Run, conn: psycopg.Connection) -> None:
    first = _evaluation(run("--json"))
    assert {name: values["queries"] for name, values in first["by_language"].items()} == {"python": 8, "go": 4}
    scores = conn.execute("SELECT per_query FROM pgembed.evaluations").fetchone()
    assert scores is not None
    whole = sum(values["mean"] * values["queries"] for values in first["by_language"].values()) / 12
    assert whole == pytest.approx(first["metrics"]["ndcg@10"]["mean"])
    assert set(first["metrics"]) == {"ndcg@10", "mrr@10", "recall@1", "recall@10", "recall@100"}
    # twelve vectors have one list, which is an exact scan
    measured = first["indexes"]["1"]
    assert (measured["recall"], measured["k"], measured["queries"], measured["rows"]) == (1.0, 10, 12, 12)
    assert 0 < measured["p50_ms"] <= measured["p95_ms"]
    second = _evaluation(run("--json"))
    assert (second["reused"], second["indexes"]) == (True, first["indexes"])
    conn.execute("UPDATE pgembed.generations SET probes = 2")
    assert _evaluation(run("--json"))["indexes"]["1"]["effort"] == 2
    shown = run()
    assert "ndcg@10 by language" in shown.stdout
    assert "recall@10 1.000 against exact search" in shown.stdout


def test_an_evaluation_from_before_gets_its_languages(run: Run, conn: psycopg.Connection) -> None:
    _evaluation(run("--json"))
    conn.execute("UPDATE pgembed.evaluations SET metrics = metrics - 'ndcg@10 go' - 'ndcg@10 python' - 'index 1'")
    again = _evaluation(run("--json", "--no-index"))
    assert again["reused"]
    assert set(again["by_language"]) == {"python", "go"}
    assert again["indexes"] == {}


def test_a_bare_artefact_has_no_index(run: Run, tiny_encoder: Path) -> None:
    assert _evaluation(run("--artefact", tiny_encoder, "--json"))["indexes"] == {}


def test_the_gate_says_whom_it_compares_by_what(run: Run, conn: psycopg.Connection) -> None:
    shown = run("--generation", 1, "--gate", "--no-index")
    assert shown.code == 0, shown.stderr
    said = shown.stdout.splitlines()[-1]
    assert said.startswith(
        "Passed: generation 1 (tiny) is not worse than generation 1 (tiny), the active generation, in"
    )
    assert "ndcg@10" in said
    assert "held-out +0.000 [+0.000, +0.000]" in said
    assert json.loads(run("--generation", 1, "--gate", "--json").stdout)["verdict"] == said


class _Tables(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.data = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not {name for name, _ in attrs} & {"src", "href", "onload", "onerror"}

    def handle_data(self, data: str) -> None:
        self.data += data


def test_the_report_holds_it_all_in_one_file(run: Run, tmp_path: Path, conn: psycopg.Connection) -> None:
    file = tmp_path / "report.html"
    shown = run("--compare", 1, 1, "--report", file)
    assert shown.code == 0, shown.stderr
    assert str(file) in shown.stderr
    page = _Tables(file.read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert {"table", "svg", "style"} <= page.tags
    for said in ("held-out, names masked", "By language", "Lineage", "recall@10 1.000 against exact search"):
        assert said in page.data
    # all queries are equal, so none was won or lost; of one generation alone some are shown, the hostile one as it is
    run("--report", file)
    page = _Tables(file.read_text(encoding="utf-8"))
    means = conn.execute("SELECT metrics -> 'ndcg@10' ->> 'mean' FROM pgembed.evaluations ORDER BY id").fetchall()
    assert len(means) == 2
    for (mean,) in means:
        assert f"{float(mean):.3f} " in page.data
    assert run("--tune-fusion", "--report", file).code == 2
    assert run("--report", tmp_path / "no" / "report.html").code == 1


def test_hostile_code_in_the_database_stays_text(run: Run, tmp_path: Path, conn: psycopg.Connection) -> None:
    conn.execute(
        "DELETE FROM pgembed.code_chunks WHERE docstring IS DISTINCT FROM %s", (_HOSTILE,)
    )  # one query alone is in the examples
    file = tmp_path / "report.html"
    assert run("--report", file, "--no-index").code == 0
    html = file.read_text(encoding="utf-8")
    page = _Tables(html)
    assert _HOSTILE in page.data
    assert "script" not in page.tags


def _encoder_row(conn: psycopg.Connection, name: str) -> int:
    row = conn.execute(
        "INSERT INTO pgembed.encoders (name, spec, fingerprint, licence) VALUES (%s, '{}', %s, 'MIT') RETURNING id",
        (name, f"fingerprint of {name}"),
    ).fetchone()
    assert row is not None
    return int(row[0])


def _run_row(conn: psycopg.Connection, base: int, encoder: int | None, state: str = "finished") -> int:
    row = conn.execute(
        "INSERT INTO pgembed.training_runs (state, view, seed, hyperparameters, data_fingerprint, base_encoder_id,"
        "                                   encoder_id, package_version)"
        " VALUES (%s, 'pgembed.triplets', 3, '{\"steps\": 80}', 'd', %s, %s, '0') RETURNING id",
        (state, base, encoder),
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_the_lineage_goes_back_through_every_run(conn: psycopg.Connection) -> None:
    published, first, second = (_encoder_row(conn, name) for name in ("published", "first", "second"))
    older, newer = _run_row(conn, published, first), _run_row(conn, first, second)
    _run_row(conn, published, None, "failed")
    for step in (2, 0, 1):
        conn.execute(
            "INSERT INTO pgembed.training_metrics (run_id, step, loss, gradient_norm, learning_rate, zero_loss_share,"
            " triplets_per_second) VALUES (%s, %s, %s, 1, 1, 0, 1)",
            (newer, step, 1 / (step + 1)),
        )
    lineage = read_lineage(conn, second)
    assert lineage is not None
    assert [(run.run_id, run.base) for run in lineage.runs] == [(newer, "first"), (older, "published")]
    assert lineage.curve == Curve([(0, 1.0), (1, 0.5), (2, pytest.approx(1 / 3))], [])
    alone = read_lineage(conn, published)
    assert alone is not None
    assert (alone.runs, alone.curve, alone.licence) == ([], None, "MIT")
    assert read_lineage(conn, None) is None
    # interpolation by nothing gives the base again: the chain is a circle, and ends
    _run_row(conn, second, published)
    circle = read_lineage(conn, published)
    assert circle is not None
    assert [run.base for run in circle.runs] == ["second", "first", "published"]
