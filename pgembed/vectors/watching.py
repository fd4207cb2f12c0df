"""New chunks embedded as they come: a listener on the channel that an insert into `code_chunks` notifies."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg

from pgembed.db.connection import connect
from pgembed.db.sql import query
from pgembed.errors import DatabaseError
from pgembed.progress import SILENT, Progress
from pgembed.vectors.choosing import NothingToEmbedError
from pgembed.vectors.reindex import ReindexResult

SETTLE_S = 1.0  # an ingest commits slice by slice: what comes within a second is embedded together
LOOK_S = 60.0  # a notification that was lost with a connection is made up for after so long
_BACK_OFF_S = (1, 2, 5, 10, 30)


def watch(
    dsn: str | None, run: Callable[[], ReindexResult], *, progress: Progress = SILENT, look_s: float = LOOK_S
) -> Iterator[ReindexResult]:
    """Yield the result of `run` now and after every addition of chunks, for ever.

    A lost connection is opened again, with growing pauses; what came meanwhile is then embedded. Where there is no
    chunk yet, the first ones are waited for.

    Raises:
        DatabaseError: there is no connection at the start.
        PgembedError: `run` fails for another reason.
    """
    failures, ran = 0, False
    while True:
        try:
            with connect(dsn, access="session") as conn:
                conn.execute(query("listen_for_chunks"))
                while True:
                    try:
                        yield run()
                    except NothingToEmbedError:
                        progress.say("There are no chunks yet; waiting for some.")
                    failures, ran = 0, True
                    _wait(conn, look_s)
        except (psycopg.OperationalError, DatabaseError) as error:
            if _is_interrupt(error):
                raise KeyboardInterrupt from error
            if not ran:
                raise
            pause = _BACK_OFF_S[min(failures, len(_BACK_OFF_S) - 1)]
            failures += 1
            progress.say(f"The connection is lost ({str(error).strip().splitlines()[0]}); trying again in {pause} s.")
            time.sleep(pause)


def _wait(conn: psycopg.Connection[Any], look_s: float) -> None:
    """Return when chunks were added and none came for a moment, or after `look_s`."""
    heard = list(conn.notifies(timeout=look_s, stop_after=1))
    while heard:
        heard = list(conn.notifies(timeout=SETTLE_S, stop_after=1))


def _is_interrupt(error: BaseException | None) -> bool:
    """Tell whether Ctrl-C is at the bottom of an error: it may come in the middle of a statement."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False
