"""`pgembed status` of training runs, of errors, and of the disk."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from fixtures_status import insert_run, shown, status
from fixtures_vectors import MadeUpEncoder, add_code, numbered_texts

from pgembed.db.sql import query
from pgembed.vectors.reindex import reindex_with


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
    insert_run(conn, "finished", metrics={"better": False, "validation": {"worse": True}})
    assert [row["better"] for row in status(database_url)["training_runs"]] == [False, None, False, True]
    rows = shown(database_url).split("Training runs")[1].splitlines()[2:6]
    for row, word in zip(rows, ("WORSE", "not measured", "not shown", "yes"), strict=True):
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
