"""Whatever is put in: no crash, no silent drop, no statement built from it; it is taken, or an error names its place.

In CI some dozens of inputs for each; the long run, ten thousand in all, is

    PGEMBED_TEST_INPUTS=1500 python -m pytest tests/integration/test_hostile_input.py
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fixtures_hybrid import CodeBase
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgembed.corpus.ingest import ingest
from pgembed.db.connection import connect
from pgembed.db.dsn import describe, normalise
from pgembed.encoders.artefact import load_manifest
from pgembed.encoders.folder import folder_spec
from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.encoders.source import resolve_spec
from pgembed.errors import PgembedError
from pgembed.evaluation.beir import read_beir
from pgembed.vectors.search import search

INPUTS = int(os.environ.get("PGEMBED_TEST_INPUTS", "40"))

hostile: Callable[[Callable[..., None]], Callable[..., None]] = settings(
    max_examples=INPUTS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

# What has broken tools before, among all of Unicode: NUL, lone surrogates, overrides of direction, escapes, quotes.
NASTY = st.sampled_from(
    ["\0", "\ud800", "\u202e", "\x1b[31m", "'; DROP TABLE pgembed.code_chunks; --", '"', "$$", "%s", "%", "{0}", "\\",
     "\r", "\u2028", "\ufeff", "a" * 5000, "/" * 300, "../" * 20, "🙂", "\u0301" * 50, "*", "[", "**/", "--",
     ":name", "\t"]
)  # fmt: skip
TEXT = st.lists(st.one_of(NASTY, st.text(st.characters(exclude_categories=()), max_size=20)), max_size=6).map("".join)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)
BYTES = st.one_of(st.binary(max_size=400), TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")))


def _fails_well(error: PgembedError, *, names: tuple[str, ...] = ("",)) -> None:
    """An error says something, names one of `names`, and is text that every stream takes."""
    assert error.message.strip()
    assert any(name in error.message for name in names), error.message
    str(error).encode("utf-8", "backslashreplace")


# ---------------------------------------------------------------- files of code

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=20)
ENDINGS = st.sampled_from([".py", ".js", ".go", ".rs", ".java", ".c", ".rb", ".php", ".ts", ".cs", ".sql", ".txt", ""])
CODE = st.one_of(
    BYTES,
    st.sampled_from([b"def f():\n    return 1\n", b"class A:\n" * 50, b"function f() {", b"{" * 3000, b"\xff\xfe\x00"]),
    st.tuples(BYTES, BYTES).map(lambda two: b"def f():\n    '''" + two[0] + b"'''\n    return " + two[1] + b"\n"),
)


@hostile
@given(files=st.dictionaries(st.tuples(NAMES, ENDINGS), CODE, min_size=1, max_size=3))
def test_every_file_is_read_or_refused_with_its_reason(
    conn: psycopg.Connection, files: dict[tuple[str, str], bytes]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        there = set()
        for (stem, ending), content in files.items():
            if stem + ending in (".", "..") or len((stem + ending).encode()) > 200:
                continue
            (folder / (stem + ending)).write_bytes(content)
            there.add(stem + ending)
        ingest(conn, folder, name="hostile")
        known = {row[0] for row in conn.execute("SELECT path FROM pgembed.source_files")}
        refused = {row[0] for row in conn.execute("SELECT path FROM pgembed.rejected_items WHERE path IS NOT NULL")}
        # a name on the disk and in the database may differ by what a text column cannot hold, and then is shown escaped
        assert len(there) <= len(known | refused) or any(not path.isprintable() for path in there)
        assert all(row[0] for row in conn.execute("SELECT reason FROM pgembed.rejected_items"))
    conn.execute("DELETE FROM pgembed.sources")
    conn.execute("DELETE FROM pgembed.rejected_items")


# ---------------------------------------------------------------- questions


@hostile
@given(
    text=TEXT,
    mode=st.sampled_from(["vector", "lexical", "hybrid"]),
    filters=st.fixed_dictionaries({}, optional=dict.fromkeys(("language", "path", "source", "kind"), TEXT)),
    k=st.sampled_from([-1, 0, 1, 3, 1000]),
)
def test_a_search_answers_or_says_why_not(
    base: CodeBase, base_conn: psycopg.Connection, text: str, mode: Any, filters: dict[str, str], k: int
) -> None:
    try:
        hits = search(base_conn, base.encoder, text, k=k, mode=mode, **filters)
    except PgembedError as error:
        _fails_well(error)
        return
    assert len(hits) <= k
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_after_all_that_everything_is_there(base: CodeBase, base_conn: psycopg.Connection) -> None:
    assert base_conn.execute("SELECT count(*) FROM pgembed.code_chunks").fetchone() == (len(base.code),)


# ---------------------------------------------------------------- data sets, encoders and their files

LINES = st.lists(
    st.one_of(JSON.map(json.dumps), st.text(max_size=30), st.just('{"_id": "1", "text": "a"}')), max_size=4
)


@hostile
@given(corpus=LINES, queries=LINES, judged=st.lists(st.one_of(TEXT, st.just("1\t1\t1")), max_size=4))
def test_a_data_set_is_read_or_refused_by_file_and_line(
    corpus: list[str], queries: list[str], judged: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "qrels").mkdir()
        for file, lines in (("corpus.jsonl", corpus), ("queries.jsonl", queries), ("qrels/test.tsv", judged)):
            (folder / file).write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
        try:
            dataset = read_beir(folder)
        except PgembedError as error:
            _fails_well(error, names=("corpus", "queries", "test.tsv"))
            return
        assert set(dataset.judgements) == set(dataset.queries)


@hostile
@given(values=JSON)
def test_an_encoder_file_is_one_or_is_refused(values: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "ours.json"
        path.write_text(json.dumps(values))
        with pytest.raises(PgembedError) as caught:
            resolve_spec(path)
        _fails_well(caught.value)


@hostile
@given(
    file=st.sampled_from(["encoder.json", "model.onnx", "tokenizer-tiny.json"]), content=BYTES, at=st.integers(0, 400)
)
def test_a_damaged_artefact_is_refused(tiny_encoder: Path, file: str, content: bytes, at: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = shutil.copytree(tiny_encoder, Path(name) / "artefact")
        there = sorted(path.name for path in folder.iterdir())
        path = folder / (file if file in there else there[-1])
        before = path.read_bytes()
        after = before[:at] + content + before[at + len(content) :]
        path.write_bytes(after)
        if after == before:
            return
        try:
            OnnxEncoder.load(folder, threads=1)
        except PgembedError as error:
            _fails_well(error)
        else:
            # what is not hashed is encoder.json itself: blanks, or a figure that decides nothing
            assert path.name == "encoder.json"
            load_manifest(folder)


@hostile
@given(
    file=st.sampled_from(["config.json", "modules.json", "1_Pooling/config.json", "sentence_bert_config.json"]),
    content=st.one_of(BYTES, JSON.map(lambda values: json.dumps(values).encode())),
)
def test_a_models_folder_is_one_or_is_refused(tiny_model: Path, file: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = shutil.copytree(tiny_model, Path(name) / "model")
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(content)
        try:
            folder_spec(folder)
        except PgembedError as error:
            _fails_well(error)


@hostile
@given(content=BYTES, at=st.integers(0, 200))
def test_damaged_weights_are_refused_and_never_run(tiny_model: Path, content: bytes, at: int) -> None:
    from pgembed.training.model import load_model

    with tempfile.TemporaryDirectory() as name:
        folder = shutil.copytree(tiny_model, Path(name) / "model")
        path = folder / "model.safetensors"
        before = path.read_bytes()
        path.write_bytes(before[:at] + content)  # cut short as well
        with pytest.raises(PgembedError) as caught:
            load_model(folder_spec(folder))
        _fails_well(caught.value)


# ---------------------------------------------------------------- connection strings

SECRET = "hunter2-Zq9"  # noqa: S105 - made up


@hostile
@given(
    before=TEXT, after=TEXT,
    form=st.sampled_from(["postgresql://me:{}@/nowhere{}", "host=/nonexistent password={} dbname=x{}", "{}{}"]),
)  # fmt: skip
def test_a_connection_string_fails_without_telling_the_password(before: str, after: str, form: str) -> None:
    dsn = form.format(SECRET, after) if form != "{}{}" else f"{before}password={SECRET} host=/nonexistent {after}"
    told = []
    try:
        told.append(describe(normalise(dsn)))
        connect(dsn).close()
    except PgembedError as error:
        _fails_well(error)
        told.append(str(error))
    assert not any(SECRET in line for line in told), told
