"""One worker an encoder: an advisory lock, which the server lets go when the worker's connection ends."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from pgembed.db.sql import query
from pgembed.errors import GenerationError

_POLL_S = 0.2


@contextmanager
def encoder_lock(conn: psycopg.Connection[Any], encoder_id: int, *, wait_s: float = 10.0) -> Iterator[None]:
    """Hold the lock of an encoder's generations.

    It is taken on the connection that writes: so when it is free, nothing of an earlier worker is in flight. A killed
    worker's server process needs a moment to notice; hence the wait.

    Raises:
        GenerationError: another worker holds it; the message says which.
    """
    deadline = time.monotonic() + wait_s
    while not _try(conn, encoder_id):
        if time.monotonic() >= deadline:
            raise GenerationError(
                f"Another reindex is at work with this encoder{_holder(conn, encoder_id)}.",
                remedy="Wait for it, or stop it; `pgembed status` shows the commands at work.",
            )
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        if not conn.closed and not conn.broken:
            conn.execute(query("unlock_encoder"), {"encoder_id": encoder_id})


def _try(conn: psycopg.Connection[Any], encoder_id: int) -> bool:
    row = conn.execute(query("try_lock_encoder"), {"encoder_id": encoder_id}).fetchone()
    return row is not None and bool(row[0])


def _holder(conn: psycopg.Connection[Any], encoder_id: int) -> str:
    row = conn.execute(query("encoder_lock_holder"), {"encoder_id": encoder_id}).fetchone()
    if row is None:
        return ""
    pid, application, host, since = row
    return f": {application} on {host}, server process {pid}, since {since:%Y-%m-%d %H:%M:%S}"
