"""What `pgembed status` gives, read back; and runs of training put in directly."""

import json
from typing import Any

import psycopg
from fixtures_cli import pgembed
from psycopg.types.json import Jsonb

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
        "id", "state", "view", "base", "encoder", "steps", "last_step", "last_loss", "better", "worse",
        "at_work", "steps_per_second", "seconds_left", "started_at", "finished_at", "error",
    },
    "rejected": {"stage", "outcome", "reason", "items", "example"},
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
