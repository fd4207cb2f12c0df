"""`pgembed status` of generations: who fills one, how far it is, what its index has measured, who holds which lock."""

import json
import os
import re
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from fixtures_cli import pgembed
from fixtures_status import Row, assert_shape, shown, status, waits
from fixtures_vectors import MadeUpEncoder, add_code, numbered_texts
from psycopg.types.json import Jsonb

from pgembed.db.connection import connect
from pgembed.db.sql import query
from pgembed.errors import GenerationError
from pgembed.overview import Overview, collect
from pgembed.vectors.lock import encoder_lock, range_lock
from pgembed.vectors.reindex import reindex, reindex_with


def test_a_generation_while_another_session_fills_it(
    conn: psycopg.Connection, database_url: str, reader_url: str, encoder: MadeUpEncoder, other: psycopg.Connection
) -> None:
    add_code(conn, numbered_texts(12))
    seen: list[tuple[Overview, Row, str]] = []
    encoder.during = lambda: seen.append((collect(other), status(reader_url), shown(database_url)))
    reindex_with(database_url, encoder, batch=4)
    assert len(seen) == 3
    vectors = [found.generations[0]["vectors"] for found, _, _ in seen]
    assert vectors == sorted(vectors)
    assert 4 <= vectors[-1] <= 8
    for found, of_reader, text in seen:
        (generation,) = found.generations
        assert (generation["state"], generation["workers"], generation["chunks"]) == ("filling", 1, 12)
        assert generation["missing"] == 12 - generation["vectors"]
        encoder_lease, lease = found.leases
        assert (encoder_lease["what"], encoder_lease["alone"]) == ("encoder", False)
        assert (lease["what"], lease["generation_id"], lease["first_chunk"], lease["last_chunk"]) == (
            "range",
            1,
            1,
            4096,
        )
        assert lease["application_name"] == f"pgembed[{os.getpid()}]"
        assert (lease["host"], lease["role"]) == ("the server itself", "postgres")
        assert timedelta(0) <= found.at - lease["connected_at"] < timedelta(minutes=5)
        assert re.search("filling (0|33|67)%, 1 at work", text)  # the last batch is written meanwhile
        assert "generation 1, chunks 1 to 4,096" in text
        assert "with others: filling" not in text  # that goes without saying
        # what a reader may not see of other roles' sessions is left open, and the rest is there
        assert_shape(of_reader)
        hidden = of_reader["leases"][1]
        assert (hidden["pid"], hidden["application_name"]) == (lease["pid"], lease["application_name"])
        assert (hidden["host"], hidden["connected_at"]) == (None, None)
        assert of_reader["generations"][0]["state"] == "filling"
    assert status(database_url)["leases"] == []


def test_a_filling_that_was_left_says_so(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder, other: psycopg.Connection
) -> None:
    add_code(conn, numbered_texts(12))

    def fail() -> None:
        if len(encoder.asked) >= 8:
            raise RuntimeError("pulled the plug")

    encoder.during = fail
    with pytest.raises(RuntimeError):
        reindex_with(database_url, encoder, batch=4)
    found = status(database_url)
    (generation,) = found["generations"]
    assert (generation["state"], generation["vectors"], generation["workers"]) == ("filling", 8, 0)
    (row,) = waits(found, "vectors")
    assert (row["items"], row["command"]) == (4, f"pgembed reindex --artefact {generation['onnx_path']}")
    assert "filling 67%, nobody at work" in shown(database_url)
    (error,) = found["errors"]
    assert (error["what"], error["id"], error["error"]) == ("generation", 1, "RuntimeError: pulled the plug")

    with encoder_lock(other, 1):
        text = shown(database_url)
        assert "filling 67%, 1 at work" in text
        assert "generations of made-up, alone: indexing" in text
    with range_lock(other, 1, 2) as ours:
        assert ours
        assert "generation 1, chunks 8,193 to 12,288" not in shown(database_url)  # there are no such chunks
        conn.execute("SELECT setval(pg_get_serial_sequence('pgembed.code_chunks', 'id'), 8192)")
        add_code(conn, ["far away"])
        assert "generation 1, chunks 8,193 to 12,288" in shown(database_url)


def test_a_failed_generation_is_an_error_with_its_time(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    add_code(conn, numbered_texts(3))
    encoder.bad = {"code": float("nan")}
    before = datetime.now(UTC)
    with pytest.raises(GenerationError):
        reindex_with(database_url, encoder)
    found = status(database_url)
    assert found["generations"][0]["state"] == "failed"
    failed = [row for row in found["errors"] if row["what"] == "generation"]
    assert [row["id"] for row in failed] == [1]
    assert "no usable vector" in failed[0]["error"]
    assert before <= datetime.fromisoformat(failed[0]["at"]) <= datetime.now(UTC)
    assert "generation 1" in shown(database_url).split("Last errors")[1]


def test_the_precision_of_a_generation(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder, tiny_encoder: Path
) -> None:
    add_code(conn, numbered_texts(5))
    encoder.manifest = replace(encoder.manifest, producer={"precision": "int8"})
    reindex_with(database_url, encoder)
    reindex(database_url, tiny_encoder)
    assert [row["precision"] for row in status(database_url)["generations"]] == ["int8", "float32"]
    listed = pgembed("generations", "list", "--dsn", database_url).stdout
    assert "precision" in listed
    assert "int8" in listed
    assert "fp32" in listed
    # one that was made before this was noted: its folder says it, where that is here
    conn.execute("UPDATE pgembed.generations SET metrics = metrics - 'precision'")
    assert [row["precision"] for row in status(database_url)["generations"]] == [None, "float32"]
    listed = json.loads(pgembed("generations", "list", "--json", "--dsn", database_url).stdout)
    assert [row["precision"] for row in listed] == [None, "float32"]
    # and the next reindex notes it
    reindex_with(database_url, encoder)
    assert status(database_url)["generations"][0]["precision"] == "int8"


def test_what_came_since_the_index_and_its_last_measured_recall(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    add_code(conn, numbered_texts(60))
    reindex_with(database_url, encoder, activate=True)
    (generation,) = status(database_url)["generations"]
    assert (generation["indexed_rows"], generation["rows_since_index"], generation["measured"]) == (60, 0, None)
    assert "vectors added" not in shown(database_url)

    add_code(conn, numbered_texts(2, start=60))  # too few to measure the index again
    reindex_with(database_url, encoder)
    for recall in (0.9, 0.75):
        measured = {"recall": recall, "p50_ms": 1.5, "p95_ms": 3, "k": 10, "queries": 40, "rows": 62, "effort": 1}
        conn.execute(
            """INSERT INTO pgembed.evaluations (dataset, fingerprint, documents, queries, settings, metrics, per_query)
               VALUES ('held-out', 'x', 1, 40, '{}', %s, '{}')""",
            (Jsonb({"index 1": measured, "index 11": {"recall": 0.1, "rows": 1}}),),
        )
    (generation,) = status(database_url)["generations"]
    assert (generation["vectors"], generation["rows_since_index"], generation["rows_since_calibration"]) == (62, 2, 2)
    assert generation["measured"] == {"recall": 0.75, "p50_ms": 1.5, "queries": 40, "rows": 62, "dataset": "held-out"}
    text = shown(database_url)
    assert "+2 since it was built" in text
    assert "0.750 at 62 vectors" in text


def test_every_lock_of_a_command_is_named(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder, other: psycopg.Connection
) -> None:
    add_code(conn, ["x"])
    reindex_with(database_url, encoder)
    other.execute(query("try_lock_source"), {"source_id": 1})
    other.execute(query("lock_choosing"), {"encoder_id": 1})
    other.execute(query("pairs_try_lock"))
    other.execute(query("try_lock_encoder"), {"encoder_id": 1})
    other.execute("SELECT pg_advisory_lock(1, 1), pg_advisory_lock(4711)")  # of somebody else's
    with other.transaction(), connect(database_url) as late:
        other.execute(query("lock_chunks"))
        thread = threading.Thread(target=lambda: late.execute(query("lock_choosing"), {"encoder_id": 1}))
        thread.start()
        found = collect(conn).leases
        while len(found) < 6:
            found = collect(conn).leases
        text = shown(database_url)
        other.execute(query("unlock_choosing"), {"encoder_id": 1})
        thread.join()
    assert [row["what"] for row in found] == ["source", "chunks", "pairs", "choosing", "choosing", "encoder"]
    ours = other.info.backend_pid
    assert {(row["what"], row["pid"] == ours) for row in found if row["waiting"]} == {("choosing", False)}
    assert sum(row["pid"] == ours for row in found) == 5
    assert (found[0]["source"], found[-1]["encoder"], found[-1]["alone"]) == ("here", "made-up", True)
    for told in (
        "source here",
        "chunks, to write",
        "pairs",
        "which generation of made-up to fill (waits for it)",
        "alone",
    ):
        assert told in text.split("Leases")[1]
