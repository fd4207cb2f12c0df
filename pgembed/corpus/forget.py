"""A source that is no longer wanted: its files, and the chunks that stand in no other, with their pairs and vectors."""

from pathlib import Path

import psycopg

from pgembed.corpus.report import IngestReport
from pgembed.corpus.slices import SliceWriter
from pgembed.corpus.sources import known_paths, only_one
from pgembed.db.sql import query
from pgembed.errors import CorpusError
from pgembed.progress import SILENT, Progress

_SLICE = 500  # files that go in one transaction


def forget(conn: psycopg.Connection, name: str, progress: Progress = SILENT) -> IngestReport:
    """Remove the source called `name`, slice by slice; interrupted, the same call goes on. Returns what went.

    Raises:
        CorpusError: there is no such source.
    """
    sources = {row[1]: (row[0], row[2]) for row in conn.execute(query("list_sources"))}
    if name not in sources:
        known = ", ".join(sorted(sources)) or "none"
        raise CorpusError(f"There is no source {name!r}; there are: {known}.", remedy="See `pgembed sources list`.")
    source_id, root = sources[name]
    report = IngestReport(name, root, None)
    with only_one(conn, source_id, name, progress):
        writer = SliceWriter(conn, source_id, report)
        paths = sorted(known_paths(conn, Path(root)))
        with progress.task(f"forgetting {name}", len(paths), "files") as task:
            for first in range(0, len(paths), _SLICE):
                part = paths[first : first + _SLICE]
                writer.remove(part)
                report.files_deleted += len(part)
                task.advance(len(part))
        writer.finish([], seen=[], unchanged=[], has_changed=True)
        conn.execute(query("delete_source"), {"source_id": source_id})
    return report
