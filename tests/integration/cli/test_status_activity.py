"""`pgembed status` while things happen: what waits, who is at work, how far they are, and what went wrong."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fixtures_chunks import Chunk, add_chunks
from fixtures_cli import pgembed
from fixtures_triplets import corpus
from fixtures_vectors import MadeUpEncoder, add_code, numbered_texts
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from pgembed import overview
from pgembed.cli.status import Rates
from pgembed.corpus.lexicon import complete_lexicon
from pgembed.db.connection import connect
from pgembed.db.roles import apply_roles
from pgembed.db.sql import query
from pgembed.errors import DatabaseError, GenerationError
from pgembed.mining.pairs import find_pairs
from pgembed.mining.triplets import refresh_triplets
from pgembed.overview import Overview, collect
from pgembed.vectors import table
from pgembed.vectors.lock import encoder_lock, range_lock
from pgembed.vectors.reindex import reindex, reindex_with

Row = dict[str, Any]
SHAPE = {
    "counts": {"sources", "files", "chunks", "docstrings", "locations", "tokens", "pairs", "rejected", "disk"},
    "estimated": None,
    "sources": {"name", "root", "revision", "ingested_at", "files", "chunks"},
    "triplets": {"total", "counts", "made_at", "stale", "marks"},
    "pairs": {"unprepared", "queued", "run"},
    "lag": {"waiting_for", "items", "generation_id", "command", "at_work"},
    "generations": {
        "id", "encoder", "precision", "state", "chunks", "vectors", "vectors_estimated", "rejected", "missing",
        "workers", "index_method", "lists", "probes", "index_recall", "indexed_rows", "calibrated_rows",
        "rows_since_index", "rows_since_calibration", "measured", "vectors_bytes", "index_bytes", "row_count", "error",
        "onnx_path", "created_at", "activated_at", "vectors_per_second",
    },
    "leases": {
        "what", "generation_id", "encoder", "run_id", "source", "first_chunk", "last_chunk", "alone", "waiting", "pid",
        "application_name", "role", "host", "connected_at",
    },
    "training_runs": {
        "id", "state", "view", "base", "encoder", "steps", "last_step", "last_loss", "better", "at_work",
        "steps_per_second", "seconds_left", "started_at", "finished_at", "error",
    },
    "rejected": {"stage", "reason", "items", "example"},
    "errors": {"what", "id", "stage", "place", "error", "at"},
    "disk": {
        "total_bytes", "chunks_bytes", "words_bytes", "pairs_bytes", "triplets_bytes", "vectors_bytes", "indexes_bytes",
        "rest_bytes",
    },
    "sessions": {"pid", "application_name", "state", "in_transaction_for"},
    "at": None,
}  # fmt: skip


def status(dsn: str) -> Row:
    outcome = pgembed("status", "--json", "--dsn", dsn)
    assert (outcome.code, outcome.stderr) == (0, "")
    found: Row = json.loads(outcome.stdout)
    return found


def shown(dsn: str) -> str:
    outcome = pgembed("status", "--dsn", dsn)
    assert (outcome.code, outcome.stderr) == (0, "")
    return outcome.stdout


def line(text: str, begins: str) -> str:
    (found,) = [one for one in text.splitlines() if one.startswith(begins)]
    return found


def waits(found: Row, what: str) -> list[Row]:
    return [row for row in found["lag"] if row["waiting_for"] == what]


def assert_shape(found: Row) -> None:
    assert set(found) == set(SHAPE)
    for part, keys in SHAPE.items():
        for row in found[part] if isinstance(found[part], list) else [found[part]]:
            assert keys is None or set(row) == keys, part


@pytest.fixture
def encoder(tmp_path: Path) -> MadeUpEncoder:
    return MadeUpEncoder(tmp_path)


@pytest.fixture
def other(database_url: str) -> Iterator[psycopg.Connection]:
    """A session of another command."""
    with connect(database_url) as connection:
        yield connection


@pytest.fixture
def reader_url(conn: psycopg.Connection, database_url: str) -> str:
    apply_roles(conn)
    return make_conninfo(database_url, options="-c role=pgembed_reader")


def insert_run(conn: psycopg.Connection, state: str, **columns: Any) -> int:
    row = conn.execute(
        """WITH base AS (INSERT INTO pgembed.encoders (name, spec, fingerprint, licence)
                         VALUES ('the-base', '{}', 'b', '')
                         ON CONFLICT (fingerprint) DO UPDATE SET name = excluded.name RETURNING id)
           INSERT INTO pgembed.training_runs (state, view, seed, hyperparameters, data_fingerprint, base_encoder_id,
                                              package_version, metrics, error, finished_at)
           SELECT %(state)s, 'triplets', 0, '{"steps": 400}', '', base.id, '0', %(metrics)s, %(error)s, %(finished_at)s
             FROM base RETURNING id""",
        {"state": state, "error": None, "finished_at": None, **columns, "metrics": Jsonb(columns.get("metrics", {}))},
    ).fetchone()
    assert row is not None
    return int(row[0])


# what there is, and what waits


def test_nothing_waits_in_an_empty_database(database_url: str) -> None:
    found = status(database_url)
    assert_shape(found)
    assert found["lag"] == found["leases"] == found["errors"] == found["triplets"]["counts"] == []
    assert (found["pairs"], found["triplets"]["made_at"]) == ({"unprepared": 0, "queued": 0, "run": None}, None)
    assert "Waiting" not in shown(database_url)


def test_triplets_by_kind_and_split_and_what_they_are_older_than(conn: psycopg.Connection, database_url: str) -> None:
    add_chunks(conn, corpus(count=80))
    find_pairs(conn, min_jaccard=0.4)
    refresh_triplets(conn)
    wanted: dict[tuple[str, str], int] = {}
    for kind, split in conn.execute("SELECT kind, split FROM pgembed.triplets").fetchall():
        wanted[kind, split] = wanted.get((kind, split), 0) + 1
    assert len(wanted) > 2
    triplets = status(database_url)["triplets"]
    assert {(row["kind"], row["split"]): row["triplets"] for row in triplets["counts"]} == wanted
    assert (triplets["total"], triplets["stale"]) == (sum(wanted.values()), [])
    assert f"{wanted['docstring', 'train']:,} train" in line(
        shown(database_url), f"{triplets['total']:,} triplets, made"
    )

    conn.execute("UPDATE pgembed.mining_settings SET value = 7 WHERE name = 'seed'")
    found = status(database_url)
    assert found["triplets"]["stale"] == ["settings"]
    assert waits(found, "triplets")[0]["command"] == "pgembed triplets --refresh"
    assert "the triplets are older than settings: pgembed triplets --refresh" in shown(database_url)


def test_chunks_that_wait_for_pairs(conn: psycopg.Connection, database_url: str) -> None:
    add_chunks(conn, [Chunk(frozenset({f"a{n}", "b", "c"}), body=f"f{n}") for n in range(5)])
    add_chunks(conn, [Chunk(frozenset(), body="no tokens")])
    found = status(database_url)
    assert (found["pairs"], waits(found, "pairs")[0]["items"]) == ({"unprepared": 5, "queued": 0, "run": None}, 5)
    assert "Waiting: 5 chunks wait to be compared: pgembed pairs" in shown(database_url)

    find_pairs(conn)
    found = status(database_url)
    assert (found["pairs"]["unprepared"], found["pairs"]["run"]["state"], waits(found, "pairs")) == (0, "finished", [])

    add_chunks(conn, [Chunk(frozenset({"x", "y"}), body="later")])
    conn.execute(query("rank_tokens"))
    conn.execute(query("prepare_sets"), {"thousandths": 500, "first": 0, "last": 2**62, "queued": True})
    found = status(database_url)
    assert (found["pairs"]["queued"], waits(found, "pairs")[0]["items"]) == (1, 1)
    assert "1 chunks wait to be compared (1 of them in the queue): pgembed pairs" in shown(database_url)


def test_an_unfinished_run_of_pairs_and_whether_somebody_is_at_work(
    conn: psycopg.Connection, database_url: str, other: psycopg.Connection
) -> None:
    conn.execute(
        "INSERT INTO pgembed.pair_runs (mode, state, min_jaccard, min_tokens) VALUES ('full', 'joining', 0.5, 0)"
    )
    conn.execute(
        """INSERT INTO pgembed.pair_slices (run_id, ordinal, low_n, low_id, high_n, high_id, sets, pairs)
           SELECT r.id, n, 0, 0, 0, 0, 1000 * n, CASE WHEN n < 3 THEN 7 END
             FROM pgembed.pair_runs r, generate_series(1, 3) n"""
    )
    run = status(database_url)["pairs"]["run"]
    told = {name: run[name] for name in ("slices", "slices_done", "chunks", "chunks_done", "at_work")}
    assert told == {"slices": 3, "slices_done": 2, "chunks": 6000, "chunks_done": 3000, "at_work": False}
    told_so = "3,000 of 6,000 chunks compared, in 2 of 3 slices; "
    assert line(shown(database_url), "Pairs: run").endswith(
        told_so + "nobody is at work: `pgembed pairs` goes on with it"
    )

    other.execute(query("pairs_try_lock"))
    found = status(database_url)
    (lease,) = found["leases"]
    assert (lease["what"], lease["pid"], lease["waiting"]) == ("pairs", other.info.backend_pid, False)
    assert (found["pairs"]["run"]["at_work"], waits(found, "pairs")[0]["at_work"]) == (True, True)
    assert line(shown(database_url), "Pairs: run").endswith(told_so + "at work")


def test_chunks_that_are_not_found_by_their_words(conn: psycopg.Connection, database_url: str) -> None:
    add_chunks(conn, [Chunk(frozenset({"a"}), body=f"f{n}", docstring="Words.") for n in range(3)])
    assert waits(status(database_url), "words")[0]["items"] == 3
    with conn.transaction():
        complete_lexicon(conn)
    assert waits(status(database_url), "words") == []
    conn.execute("UPDATE pgembed.lexical_documents SET described = false WHERE chunk_id = 1")
    assert "1 chunks are not found by their words yet: pgembed ingest PATH" in shown(database_url)


def test_chunks_without_a_vector_but_for_those_that_can_have_none(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    add_code(conn, numbered_texts(20))
    found = status(database_url)
    assert [(row["items"], row["command"]) for row in waits(found, "vectors")] == [(20, "pgembed reindex --activate")]

    encoder.bad = {"never": float("nan")}
    add_code(conn, ["never embedded"])
    reindex_with(database_url, encoder)
    found = status(database_url)
    assert waits(found, "vectors") == []
    assert waits(found, "activation")[0]["command"] == "pgembed generations activate 1"
    assert "generation 1 is ready, and none is active: pgembed generations activate 1" in shown(database_url)

    reindex_with(database_url, encoder, activate=True)
    found = status(database_url)
    (generation,) = found["generations"]
    assert (generation["chunks"], generation["vectors"], generation["rejected"], generation["missing"]) == (
        21,
        20,
        1,
        0,
    )
    assert waits(found, "vectors") == waits(found, "activation") == []

    add_code(conn, ["come later", "come last"])
    conn.execute("DELETE FROM pgembed.code_chunks WHERE content IN ('topic0 code 0', 'topic1 code 1', 'topic2 code 2')")
    found = status(database_url)
    (row,) = waits(found, "vectors")
    assert (row["items"], row["generation_id"], row["command"], row["at_work"]) == (2, 1, "pgembed reindex", False)
    assert found["generations"][0]["vectors"] == 17
    assert "2 chunks have no vector in generation 1: pgembed reindex" in shown(database_url)


# generations


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


# training, errors, disk


def test_a_training_run_step_by_step(conn: psycopg.Connection, database_url: str, other: psycopg.Connection) -> None:
    run = insert_run(conn, "running")
    conn.execute(
        """INSERT INTO pgembed.training_metrics (run_id, step, loss, gradient_norm, learning_rate, zero_loss_share,
                                                 triplets_per_second, recorded_at)
           SELECT %s, n, 0.5, 1, 0, 0, 0, timestamptz '2026-01-01' + n * interval '500 ms'
             FROM generate_series(1, 300) n""",
        (run,),
    )
    (found,) = status(database_url)["training_runs"]
    assert (found["at_work"], found["steps_per_second"], found["seconds_left"]) == (False, None, None)
    assert "running, nobody at work" in shown(database_url)

    other.execute(query("training_try_lock"), {"run_id": run})
    found = status(database_url)
    (lease,) = found["leases"]
    assert (lease["what"], lease["run_id"], lease["pid"]) == ("training", run, other.info.backend_pid)
    (row,) = found["training_runs"]
    assert (row["at_work"], row["base"], row["steps"], row["last_step"]) == (True, "the-base", 400, 300)
    assert (row["steps_per_second"], row["seconds_left"]) == (pytest.approx(2), pytest.approx(50))
    text = shown(database_url)
    assert "300 of 400, 2/s, 50 s left" in text
    assert f"training run {run}" in text

    conn.execute("UPDATE pgembed.training_metrics SET loss = 'NaN' WHERE step = 300")
    assert status(database_url)["training_runs"][0]["last_loss"] is None
    assert "not finite" in shown(database_url)


def test_whether_a_training_run_is_better_than_its_base(conn: psycopg.Connection, database_url: str) -> None:
    for better in (True, False, None):
        insert_run(conn, "finished", metrics={"better": better})
    assert [row["better"] for row in status(database_url)["training_runs"]] == [None, False, True]
    rows = shown(database_url).split("Training runs")[1].splitlines()[2:5]
    for row, word in zip(rows, ("not measured", "not shown", "yes"), strict=True):
        assert f" {word} " in row


def test_the_newest_errors_of_each_kind(conn: psycopg.Connection, database_url: str) -> None:
    for number in range(5):
        at = datetime(2026, 1, 1 + number, tzinfo=UTC)
        insert_run(conn, "failed", error=f"broke {number} [/x]\x1b[31m", finished_at=at)
        conn.execute(
            """INSERT INTO pgembed.rejected_items (stage, path, reason, detail, created_at)
               VALUES ('ingest', %s, 'nul_bytes', 'byte 7', %s)""",
            (f"a{number}.py", at + timedelta(hours=1)),
        )
    add_code(conn, ["x"])
    conn.execute(
        """INSERT INTO pgembed.rejected_items (stage, chunk_id, reason, created_at)
           SELECT 'reindex', id, 'zero', '2025-01-01' FROM pgembed.code_chunks"""
    )
    errors = status(database_url)["errors"]
    assert [row["error"][:12] for row in errors] == [
        "nul_bytes: b",
        "broke 4 [/x]",
        "broke 3 [/x]",
        "broke 2 [/x]",
        "zero",
    ]
    assert (errors[0]["place"], errors[0]["stage"], errors[-1]["place"]) == ("a4.py", "ingest", "chunk 1")
    text = shown(database_url)
    assert r"broke 4 [/x]\x1b[31m" in text
    assert "2026-01-05 01:00:00  rejected at ingest" in text


def test_disk_by_part_adds_up(conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder) -> None:
    add_code(conn, numbered_texts(50))
    reindex_with(database_url, encoder)
    disk = status(database_url)["disk"]
    assert sum(disk.values()) == 2 * disk["total_bytes"]
    row = conn.execute(
        """SELECT sum(pg_total_relation_size(oid))::bigint, pg_table_size('pgembed.code_embeddings_1'),
                  pg_indexes_size('pgembed.code_embeddings_1')
             FROM pg_class WHERE relnamespace = 'pgembed'::regnamespace AND relkind = 'r'"""
    ).fetchone()
    assert (disk["total_bytes"], disk["vectors_bytes"], disk["indexes_bytes"]) == row
    (generation,) = status(database_url)["generations"]
    assert (generation["vectors_bytes"], generation["index_bytes"]) == row[1:]
    assert "Disk: chunks " in shown(database_url)


# what is large, locked, or not this role's to see


def test_large_tables_are_not_counted_but_estimated(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_chunks(conn, corpus(count=60))
    find_pairs(conn)
    reindex_with(database_url, encoder)
    exact = status(database_url)
    monkeypatch.setattr(overview, "_COUNTED_BYTES", -1)
    conn.execute("ANALYZE pgembed.code_chunks, pgembed.candidate_pairs, pgembed.code_embeddings_1")
    about = status(database_url)
    assert about["estimated"] == ["docstrings", "pairs"]
    for name in about["estimated"]:
        assert about["counts"][name] == exact["counts"][name] > 0  # of tables this small all rows are sampled
    assert about["generations"][0]["vectors_estimated"]
    assert about["generations"][0]["vectors"] == exact["generations"][0]["vectors"]
    text = shown(database_url)
    assert f"about {exact['counts']['pairs']:,} candidate pairs" in text
    assert f"about {exact['generations'][0]['vectors']:,}" in text


def test_a_reader_sees_all_of_it(
    conn: psycopg.Connection, database_url: str, reader_url: str, encoder: MadeUpEncoder, other: psycopg.Connection
) -> None:
    add_chunks(conn, corpus(count=40))
    find_pairs(conn)
    refresh_triplets(conn)
    reindex_with(database_url, encoder, activate=True)
    insert_run(conn, "failed", error="broke")
    other.execute(query("pairs_try_lock"))
    of_owner, of_reader = status(database_url), status(reader_url)
    assert_shape(of_reader)
    hidden = {"sessions", "leases", "at"}
    assert {k: v for k, v in of_reader.items() if k not in hidden} == {
        k: v for k, v in of_owner.items() if k not in hidden
    }
    assert [row["pid"] for row in of_reader["leases"]] == [other.info.backend_pid]
    assert other.info.backend_pid in [row["pid"] for row in of_reader["sessions"]]
    assert "Leases" in shown(reader_url)


def test_a_table_that_a_reader_may_not_read_is_estimated(
    conn: psycopg.Connection, reader_url: str, database_url: str, encoder: MadeUpEncoder
) -> None:
    add_code(conn, numbered_texts(9))
    seen: list[Row] = []

    def look() -> None:
        conn.execute(sql.SQL("REVOKE ALL ON {} FROM pgembed_reader").format(table.identifier(1)))
        seen.append(status(reader_url))

    encoder.during = look
    reindex_with(database_url, encoder, batch=3)
    for found in seen:
        (generation,) = found["generations"]
        assert generation["vectors_estimated"]
        assert 0 <= generation["vectors"] <= 9


def test_a_locked_table_is_told_and_not_waited_for(
    database_url: str, other: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, conn: psycopg.Connection
) -> None:
    monkeypatch.setattr(overview, "_LOCK_TIMEOUT", "50ms")
    with other.transaction():
        other.execute("LOCK TABLE pgembed.code_chunks IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DatabaseError, match="is locked by another session"):
            collect(conn)
    assert collect(conn).counts["chunks"] == 0
    assert conn.execute("SHOW lock_timeout").fetchone() == ("0",)


# --watch


def watching(dsn: str, *arguments: str, **given: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pgembed", "status", "--watch", "--every", "0.2", "--dsn", dsn, *arguments],
        text=True,
        **given,
    )


def test_watch_tells_in_json_how_fast_a_generation_grows(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    add_code(conn, numbered_texts(8))
    process = watching(database_url, "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        first = json.loads(process.stdout.readline())
        assert_shape(first)
        assert first["generations"] == []
        reindex_with(database_url, encoder)
        found = first
        while not found["generations"] or found["generations"][0]["vectors"] < 8:
            found = json.loads(process.stdout.readline())
        add_code(conn, numbered_texts(40, start=8))
        reindex_with(database_url, encoder)
        before, began = found, datetime.fromisoformat(found["at"])
        while before["generations"][0]["vectors"] < 48:
            before = json.loads(process.stdout.readline())
        rate = before["generations"][0]["vectors_per_second"]
        assert 0 < rate <= 48 / (datetime.fromisoformat(before["at"]) - began).total_seconds()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert (process.wait(20), process.stderr.read()) == (0, "")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_watch_redraws_a_terminal_until_ctrl_c(conn: psycopg.Connection, database_url: str) -> None:
    ours, theirs = pty.openpty()
    process = watching(database_url, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    text = ""
    try:
        add_code(conn, numbered_texts(3))
        end = time.monotonic() + 60
        while "3 chunks (" not in text:
            assert time.monotonic() < end
            text += os.read(ours, 65536).decode(errors="replace")
        process.send_signal(signal.SIGINT)
        while process.poll() is None:
            try:
                text += os.read(ours, 65536).decode(errors="replace")
            except OSError:  # the other side is gone
                break
        assert process.wait(20) == 0
        assert "until Ctrl-C" in text
        assert "Traceback" not in text
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_every_goes_with_watch(database_url: str) -> None:
    outcome = pgembed("status", "--every", "3", "--dsn", database_url)
    assert outcome.code == 2
    assert "--every goes with --watch" in outcome.stderr


def test_the_rate_is_that_of_the_last_minute(conn: psycopg.Connection) -> None:
    rates = Rates()
    seen = collect(conn)
    at = seen.at
    told = []
    for second, vectors in ((0, 0), (30, 300), (60, 600), (90, 600), (120, 600), (130, 600), (140, 650)):
        found = replace(seen, at=at + timedelta(seconds=second), generations=[{"id": 7, "vectors": vectors}])
        told.append(rates.after(found).get(7))
    assert told == [None, 10, 10, 5, None, None, pytest.approx(1)]
    assert rates.after(replace(seen, generations=[{"id": 7, "vectors": None}])) == {}
