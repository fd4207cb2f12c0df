"""Chunks that are longer than the encoder reads: counted, cut or embedded in windows, and never both in one generation.

And chunks that the tokenizer or the engine fails on: each for itself, with a real engine on a real Postgres.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import psycopg
import pytest
from fixtures_cli import pgembed
from fixtures_vectors import MadeUpEncoder, add_code, stored_vectors

from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.errors import EncoderError, GenerationError
from pgembed.vectors.generations import active_id, get_generation
from pgembed.vectors.reindex import reindex, reindex_with

SHORT = [f"def f{n}():\n    return {n}" for n in range(30)]
LONG = [f"def long{n}():\n" + f"    total += value_{n}\n" * (40 + n) for n in range(5)]


def _one_by_one(artefact: Path, ids: list[int], texts: list[str], long: str) -> dict[int, np.ndarray]:
    """Embed each text alone, by an encoder of its own."""
    encoder = OnnxEncoder.load(artefact, threads=1)
    return {
        chunk_id: encoder.embed_each([text], role="passage", long=long).vectors[0]  # type: ignore[arg-type]
        for chunk_id, text in zip(ids, texts, strict=True)
    }


def _assert_vectors(conn: psycopg.Connection, generation_id: int, expected: dict[int, np.ndarray]) -> None:
    found = stored_vectors(conn, generation_id)
    assert found.keys() == expected.keys()
    for chunk_id, vector in expected.items():
        np.testing.assert_allclose(found[chunk_id], vector, atol=2e-6)


def _metrics(conn: psycopg.Connection, generation_id: int) -> tuple[str, int]:
    row = conn.execute(
        "SELECT metrics ->> 'long', (metrics ->> 'long_chunks')::int FROM pgembed.generations WHERE id = %s",
        (generation_id,),
    ).fetchone()
    assert row is not None
    return row[0], row[1]


def test_cut_and_windowed_are_two_generations_and_each_goes_on_as_it_began(
    conn: psycopg.Connection, database_url: str, tiny_encoder: Path
) -> None:
    texts = [*SHORT, *LONG]
    ids = add_code(conn, texts)
    cut = reindex(database_url, tiny_encoder, batch=8, activate=True)
    assert (cut.generation_id, cut.long, cut.long_chunks, cut.max_tokens) == (1, "truncate", 5, 64)
    assert _metrics(conn, 1) == ("truncate", 5)
    windowed = reindex(database_url, tiny_encoder, batch=8, long="windows")
    assert (windowed.generation_id, windowed.kind, windowed.long, windowed.long_chunks) == (2, "new", "windows", 5)
    assert _metrics(conn, 2) == ("windows", 5)
    assert active_id(conn) == 1
    _assert_vectors(conn, 1, _one_by_one(tiny_encoder, ids, texts, "truncate"))
    _assert_vectors(conn, 2, _one_by_one(tiny_encoder, ids, texts, "windows"))
    first, second = stored_vectors(conn, 1), stored_vectors(conn, 2)
    assert max(first[chunk_id] @ second[chunk_id] for chunk_id in ids[30:]) < 0.999

    # without a choice the active one goes on; whichever that is
    texts.append("def late():\n" + "    await something_else()\n" * 50)
    ids += add_code(conn, texts[-1:])
    late = reindex(database_url, tiny_encoder)
    assert (late.generation_id, late.embedded, late.long, late.long_chunks) == (1, 1, "truncate", 6)
    late = reindex(database_url, tiny_encoder, long="windows", activate=True)
    assert (late.generation_id, late.kind, late.embedded, late.long_chunks) == (2, "incremental", 1, 6)
    texts.append("def latest():\n" + "    yield from nothing\n" * 50)
    ids += add_code(conn, texts[-1:])
    latest = reindex(database_url, tiny_encoder)
    assert (latest.generation_id, latest.long, latest.long_chunks) == (2, "windows", 7)
    _assert_vectors(conn, 2, _one_by_one(tiny_encoder, ids, texts, "windows"))


def test_a_generation_from_before_the_choice_is_one_that_cuts(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    add_code(conn, SHORT)
    reindex_with(database_url, encoder)
    conn.execute("UPDATE pgembed.generations SET metrics = metrics - 'long'")
    assert reindex_with(database_url, encoder, long="truncate").generation_id == 1
    assert encoder.long == "truncate"
    assert reindex_with(database_url, encoder, long="windows").generation_id == 2
    assert encoder.long == "windows"


def test_a_run_that_was_interrupted_counts_each_long_chunk_once(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    encoder.reads = 3
    add_code(conn, [*(f"a short {n}" for n in range(10)), *(f"this one is long {n}" for n in range(10))])

    def fail() -> None:
        if len(encoder.asked) >= 16:
            raise KeyboardInterrupt

    encoder.during = fail
    with pytest.raises(KeyboardInterrupt):
        reindex_with(database_url, encoder, batch=4, long="windows")
    encoder.during = None
    before = _metrics(conn, 1)
    assert before[0] == "windows"
    assert 0 < before[1] < 10
    result = reindex_with(database_url, encoder, batch=4)
    assert (result.kind, result.long, result.long_chunks, result.rows) == ("resumed", "windows", 10, 20)


def test_fresh_with_another_choice_starts_one_of_that_choice(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    add_code(conn, SHORT)
    reindex_with(database_url, encoder)
    first = reindex_with(database_url, encoder, fresh=True, long="windows")
    again = reindex_with(database_url, encoder, fresh=True)
    assert [(one.generation_id, one.long) for one in (first, again)] == [(2, "windows"), (3, "truncate")]
    with pytest.raises(GenerationError, match="'drop'; there are truncate, windows"):
        reindex_with(database_url, encoder, long="drop")  # type: ignore[arg-type]


def test_the_command_tells_what_was_cut_and_how_to_have_all_of_it(
    conn: psycopg.Connection, database_url: str, tiny_encoder: Path
) -> None:
    add_code(conn, [*SHORT, *LONG])
    arguments = ("reindex", "--artefact", str(tiny_encoder), "--dsn", database_url)
    told = pgembed(*arguments)
    assert told.code == 0, told.stderr
    assert "5 chunks are longer than the 64 tokens" in told.stdout
    assert "pgembed reindex --long windows" in told.stdout
    told = pgembed(*arguments, "--long", "windows")
    assert "5 chunks longer than 64 tokens were embedded in windows." in told.stdout
    found = json.loads(pgembed(*arguments, "--long", "windows", "--json").stdout)
    assert (found["generation_id"], found["long"], found["long_chunks"]) == (2, "windows", 5)
    assert pgembed(*arguments, "--long", "drop").code == 2
    assert pgembed("generations", "list", "--dsn", database_url).stdout.count("windows") == 1
    listed = json.loads(pgembed("generations", "list", "--dsn", database_url, "--json").stdout)
    assert [(one["long"], one["long_chunks"]) for one in listed] == [("truncate", 5), ("windows", 5)]


@pytest.fixture
def overreaching(tiny_encoder: Path, tmp_path: Path) -> Path:
    """The tiny model, said to read more tokens than it has positions for: its graph fails on texts beyond 128."""
    copy = shutil.copytree(tiny_encoder, tmp_path / "overreaching")
    manifest = json.loads((copy / "encoder.json").read_text())
    manifest["spec"]["towers"][0]["max_tokens"] = 500
    (copy / "encoder.json").write_text(json.dumps(manifest))
    return Path(copy)


@pytest.mark.parametrize("batch", [4, 512])
def test_a_chunk_that_the_engine_fails_on_is_rejected_with_what_it_said_and_the_rest_goes_on(
    conn: psycopg.Connection, database_url: str, overreaching: Path, tiny_encoder: Path, batch: int
) -> None:
    texts = [*SHORT[:11], "word " * 300, *SHORT[11:], "other " * 400]
    ids = add_code(conn, texts)
    bad = [ids[11], ids[-1]]
    result = reindex(database_url, overreaching, batch=batch, activate=True)
    assert (result.state, result.rows, result.rejected) == ("active", 30, 2)
    rows = conn.execute("SELECT chunk_id, reason, detail FROM pgembed.rejected_items ORDER BY chunk_id").fetchall()
    assert [(chunk_id, reason) for chunk_id, reason, _ in rows] == [(chunk_id, "encoder_error") for chunk_id in bad]
    assert all("generation 1: " in detail and "ONNXRuntimeError" in detail for _, _, detail in rows)
    kept = [(chunk_id, text) for chunk_id, text in zip(ids, texts, strict=True) if chunk_id not in bad]
    _assert_vectors(
        conn, 1, _one_by_one(tiny_encoder, [one for one, _ in kept], [text for _, text in kept], "truncate")
    )
    again = reindex(database_url, overreaching)
    assert (again.embedded, again.rejected) == (0, 2)


def test_an_engine_that_dies_rejects_no_chunk_and_the_next_run_goes_on(
    conn: psycopg.Connection, database_url: str, tiny_encoder: Path
) -> None:
    add_code(conn, SHORT)
    encoder = OnnxEncoder.load(tiny_encoder, threads=1)
    session = encoder._session

    class Dying:
        calls = 0

        def run(self, *arguments: object) -> object:
            self.calls += 1
            if self.calls > 2:
                raise RuntimeError("CUDA failure 719")
            return session.run(*arguments)

    encoder._session = Dying()
    with pytest.raises(EncoderError, match="fails on every text: CUDA failure 719"):
        reindex_with(database_url, encoder, batch=4)
    assert conn.execute("SELECT count(*) FROM pgembed.rejected_items").fetchone() == (0,)
    generation = get_generation(conn, 1)
    assert (generation.state, generation.rejected) == ("filling", [])
    assert generation.error is not None
    assert "CUDA failure 719" in generation.error
    result = reindex(database_url, tiny_encoder)
    assert (result.kind, result.rows, result.state) == ("resumed", 30, "ready")
