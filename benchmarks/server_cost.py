"""What a piece of work costs the server: bytes of temporary files and of WAL, and the peak memory of its backends."""

import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psycopg

from pgembed.db.connection import connect

_INTERVAL_S = 0.05


@dataclass
class ServerCost:
    """Measures while the block runs. Memory is that of all backends of the database but ours, on this machine only.

    Counted is anonymous memory (RssAnon): shared buffers belong to the server and not to a query.
    """

    dsn: str
    temporary_bytes: int = 0
    wal_bytes: int = 0
    memory_bytes: int | None = None

    def __enter__(self) -> "ServerCost":
        self._conn = connect(self.dsn, access="session")
        self._before = self._counters()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        after = self._counters()
        self.temporary_bytes, self.wal_bytes = (int(b - a) for a, b in zip(self._before, after, strict=True))
        self._conn.close()

    def __str__(self) -> str:
        memory = "?" if self.memory_bytes is None else f"{self.memory_bytes / 2**20:,.0f}"
        temporary, wal = self.temporary_bytes / 2**20, self.wal_bytes / 2**20
        return f"{temporary:,.0f} MB temporary files, {wal:,.0f} MB WAL, {memory} MB peak memory"

    def _counters(self) -> tuple[int, int]:
        self._conn.execute("SELECT pg_stat_force_next_flush()")
        row = self._conn.execute(
            "SELECT (SELECT temp_bytes FROM pg_stat_database WHERE datname = current_database()),"
            " pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"
        ).fetchone()
        assert row is not None
        return row[0], int(row[1])

    def _watch(self) -> None:
        with connect(self.dsn, access="session") as conn:
            while not self._stop.wait(_INTERVAL_S):
                self._look(conn)

    def _look(self, conn: psycopg.Connection) -> None:
        rows = conn.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        found = [_anonymous_bytes(pid) for (pid,) in rows]
        known = [size for size in found if size is not None]
        if known:
            self.memory_bytes = max(self.memory_bytes or 0, sum(known))


def _anonymous_bytes(pid: int) -> int | None:
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # it ended, or is on another machine, or belongs to somebody else
    return None
