"""Who may do what with an encoder's generations, by advisory locks, which the server lets go when a session ends.

Any number of workers fill together: each shares the encoder's lock, and holds that of the range of chunks that it is
embedding. To index, attach, activate or drop, one holds the encoder's lock alone. Locks are the leases: those of a
killed worker are free within two seconds, those of a host that is gone within a minute (the session asks for
keepalives), and another takes its ranges over. They are taken on the connection that writes: so when one is free,
nothing of its holder is in flight.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from pgembed.db.sql import query
from pgembed.errors import GenerationError
from pgembed.progress import SILENT, Progress

Connection = psycopg.Connection[Any]

RANGE = 4096
"""Ids of chunks in a range: eight commits of 512, so that two workers share already some thousand chunks."""
_POLL_S = 0.2
_TOLD_AFTER_S = 2.0


@contextmanager
def encoder_lock(
    conn: Connection, encoder_id: int, *, wait_s: float | None = 10.0, progress: Progress = SILENT
) -> Iterator[None]:
    """Hold the lock of an encoder's generations alone; `wait_s` None waits as long as it takes.

    Raises:
        GenerationError: others hold it still after `wait_s`; the message says which.
    """
    with _held(conn, "try_lock_encoder", "unlock_encoder", encoder_id, wait_s, progress):
        yield


@contextmanager
def shared_encoder_lock(conn: Connection, encoder_id: int, *, progress: Progress = SILENT) -> Iterator[None]:
    """Hold it together with others that fill; waits for one who indexes."""
    with _held(conn, "try_share_encoder", "unshare_encoder", encoder_id, None, progress):
        yield


@contextmanager
def choosing_lock(conn: Connection, encoder_id: int) -> Iterator[None]:
    """Hold what keeps two workers from making a generation each; it is held for moments."""
    conn.execute(query("lock_choosing"), {"encoder_id": encoder_id})
    try:
        yield
    finally:
        _let_go(conn, "unlock_choosing", encoder_id=encoder_id)


@contextmanager
def range_lock(conn: Connection, generation_id: int, number: int) -> Iterator[bool]:
    """Tell whether a range of chunks is ours, and hold it while the block runs if it is."""
    key = {"generation_id": generation_id, "number": number}
    row = conn.execute(query("try_lock_range"), key).fetchone()
    if row is None or not row[0]:
        yield False
        return
    try:
        yield True
    finally:
        _let_go(conn, "unlock_range", **key)


@contextmanager
def _held(
    conn: Connection, take: str, give: str, encoder_id: int, wait_s: float | None, progress: Progress
) -> Iterator[None]:
    began = time.monotonic()
    told = False
    while not _try(conn, take, encoder_id):
        waited = time.monotonic() - began
        if wait_s is not None and waited >= wait_s:
            raise GenerationError(
                f"Another reindex is at work with this encoder{_holder(conn, encoder_id)}.",
                remedy="Wait for it, or stop it; `pgembed status` shows the commands at work.",
            )
        if not told and waited >= _TOLD_AFTER_S:
            progress.say(f"Waiting for another reindex with this encoder{_holder(conn, encoder_id)} …")
            told = True
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        _let_go(conn, give, encoder_id=encoder_id)


def _try(conn: Connection, name: str, encoder_id: int) -> bool:
    row = conn.execute(query(name), {"encoder_id": encoder_id}).fetchone()
    return row is not None and bool(row[0])


def _let_go(conn: Connection, name: str, **key: int) -> None:
    # a session that an interrupt has left in the middle of a statement takes no other; it ends, and its locks with it
    if not (conn.closed or conn.broken or conn.info.transaction_status == TransactionStatus.ACTIVE):
        conn.execute(query(name), key)


def _holder(conn: Connection, encoder_id: int) -> str:
    row = conn.execute(query("encoder_lock_holder"), {"encoder_id": encoder_id}).fetchone()
    if row is None:
        return ""
    pid, application, host, since = row
    return f": {application} on {host}, server process {pid}, since {since:%Y-%m-%d %H:%M:%S}"
