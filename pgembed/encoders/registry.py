"""Encoders as rows. Writes `encoders`."""

import psycopg
from psycopg.types.json import Jsonb

from pgembed.db.sql import query
from pgembed.encoders.spec import EncoderSpec


def register_encoder(conn: psycopg.Connection, spec: EncoderSpec, fingerprint: str) -> int:
    """Return the id of this encoder's row, made if it is not there. The same spec and weights are the same row."""
    row = conn.execute(
        query("register_encoder"),
        {"name": spec.name, "spec": Jsonb(spec.to_json()), "fingerprint": fingerprint, "licence": spec.licence},
    ).fetchone()
    assert row is not None  # noqa: S101 - RETURNING of an upsert gives a row
    return int(row[0])
