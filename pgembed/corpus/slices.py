"""A slice of files to rows, in one transaction: temporary tables by COPY, then set-wise statements.

Writes `source_files`, `code_chunks`, `chunk_locations`, `tokens`, `lexical_documents`, `rejected_items`. Every writer
of chunks takes one lock for its transaction, so that no slice removes a chunk as an orphan while another gives it a
place.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import LiteralString, TypeVar

import psycopg

from pgembed.corpus.lexicon import complete_lexicon
from pgembed.corpus.parse import Parsed
from pgembed.corpus.report import IngestReport
from pgembed.db.sql import query

_Result = TypeVar("_Result")

_MAX_FILES = 500
_MAX_BYTES = 4_000_000
_ATTEMPTS = 5
_COPIES: dict[str, LiteralString] = {
    "chunks": "COPY pg_temp.slice_chunks FROM STDIN",
    "locations": "COPY pg_temp.slice_locations FROM STDIN",
    "files": "COPY pg_temp.slice_files FROM STDIN",
    "rejects": "COPY pg_temp.slice_rejects FROM STDIN",
}


@dataclass
class Slice:
    """Files that are written together."""

    parsed: list[Parsed] = field(default_factory=list)
    rejects: dict[tuple[str, str], str] = field(default_factory=dict)
    """Detail by path and reason: what the walk left out, what could not be read, parts of files."""
    size_bytes: int = 0

    def add(self, parsed: Parsed) -> None:
        """Take a file that was kept, or its reason."""
        if parsed.unusable is not None:
            self.rejects[parsed.path, parsed.unusable.reason] = parsed.unusable.detail
        for remark in parsed.remarks:
            self.rejects[parsed.path, remark.reason] = remark.detail
        self.parsed.append(parsed)
        self.size_bytes += parsed.size_bytes

    def is_full(self) -> bool:
        """Whether it is time to write it: what bounds the memory, and what an interruption costs."""
        return len(self.parsed) + len(self.rejects) >= _MAX_FILES or self.size_bytes >= _MAX_BYTES


class SliceWriter:
    """Writes the slices of one source."""

    def __init__(self, conn: psycopg.Connection, source_id: int, report: IngestReport) -> None:
        self.conn = conn
        self.report = report
        self._source = {"source_id": source_id}
        for table in ("create_slice_chunks", "create_slice_locations", "create_slice_files", "create_slice_rejects"):
            conn.execute(query(table))

    def write(self, part: Slice) -> None:
        """Commit one slice. A second writing of the same slice changes nothing."""
        report = self.report
        new, reused, deleted = self._retry(lambda: self._write(part))
        report.chunks_new += new
        report.chunks_reused += reused
        report.chunks_deleted += deleted

    def remove(self, paths: list[str]) -> None:
        """Remove files, and the chunks that stood in them and stand nowhere else; commits."""
        self.report.chunks_deleted += self._retry(lambda: self._remove(paths))

    def finish(self, gone: list[str], *, seen: list[str], unchanged: list[str], has_changed: bool) -> None:
        """Remove the files that are gone and the remarks on paths not `seen`; bring what depends on all up to date.

        `has_changed`: whether this run has written or removed chunks. What an interrupted one wrote is found here.
        """
        self.report.chunks_deleted += self._retry(lambda: self._finish(gone, seen, unchanged, has_changed))

    def _write(self, part: Slice) -> tuple[int, int, int]:
        conn, source = self.conn, self._source
        kept = [parsed for parsed in part.parsed if parsed.unusable is None]
        read = [parsed for parsed in kept if not parsed.is_same]
        same = [parsed for parsed in kept if parsed.is_same]
        conn.execute(query("lock_chunks"))
        distinct = {sha256: (chunk, words) for parsed in read for sha256, chunk, words in parsed.chunks}
        _copy(conn, "chunks", (
            (sha256, chunk.language, chunk.kind, chunk.symbol, chunk.content, chunk.docstring, chunk.body,
             chunk.content.count("\n") + 1, words)
            for sha256, (chunk, words) in distinct.items()
        ))  # fmt: skip
        _copy(conn, "locations", (
            (sha256, parsed.path, chunk.start_line, chunk.end_line, chunk.qualified)
            for parsed in read for sha256, chunk, _ in parsed.chunks
        ))  # fmt: skip
        _copy(conn, "files", (
            (parsed.path, parsed.sha256, parsed.size_bytes, parsed.modified_ns, parsed.language, parsed.chunker)
            for parsed in read
        ))  # fmt: skip
        _copy(conn, "rejects", ((path, reason, detail) for (path, reason), detail in part.rejects.items()))
        conn.execute(query("analyze_slice"))
        conn.execute(query("insert_tokens"))
        new = conn.execute(query("insert_chunks")).rowcount
        conn.execute(query("upsert_files"), source)
        left = [row[0] for row in conn.execute(query("clear_locations"), source)]
        conn.execute(query("insert_locations"), source)
        stamps = {"paths": [p.path for p in same], "modified": [p.modified_ns for p in same]}
        conn.execute(query("note_time_stamps"), {**source, **stamps})
        # what could not be looked at keeps the rows that it has: nobody knows that it changed
        usable = {parsed.path for parsed in kept}
        lost = [path for path, reason in part.rejects if path not in usable and reason != "unreadable"]
        left += [row[0] for row in conn.execute(query("delete_files"), {**source, "paths": lost})]
        deleted = conn.execute(query("delete_orphans"), {"chunk_ids": left}).rowcount
        paths = [*(parsed.path for parsed in read), *(path for path, _ in part.rejects)]
        conn.execute(query("clear_rejects"), {**source, "paths": paths})
        conn.execute(query("insert_rejects"), source)
        return new, len(distinct) - new, deleted

    def _finish(self, gone: list[str], seen: list[str], unchanged: list[str], has_changed: bool) -> int:
        conn, source = self.conn, self._source
        deleted = self._remove(gone)
        conn.execute(query("clear_other_rejects"), {**source, "seen": seen, "unchanged": unchanged})
        conn.execute(query("count_document_frequencies"))
        described = complete_lexicon(conn)
        conn.execute(query("finish_source"), {**source, "revision": self.report.revision})
        if has_changed or described:
            # in the same transaction: killed behind it, the next run would find nothing changed and leave it out
            conn.execute(query("analyze_corpus"))
        return deleted

    def _remove(self, paths: list[str]) -> int:
        self.conn.execute(query("lock_chunks"))
        left = [row[0] for row in self.conn.execute(query("delete_files"), {**self._source, "paths": paths})]
        return self.conn.execute(query("delete_orphans"), {"chunk_ids": left}).rowcount

    def _retry(self, do: Callable[[], _Result]) -> _Result:
        # mining and reindexing write rows that refer to the chunks we delete, in an order of their own
        for left in reversed(range(_ATTEMPTS)):
            try:
                with self.conn.transaction():
                    return do()
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                if not left:
                    raise
        raise AssertionError("unreachable")


def _copy(conn: psycopg.Connection, name: str, rows: Iterable[Sequence[object]]) -> None:
    with conn.cursor() as cursor, cursor.copy(_COPIES[name]) as copy:
        for row in rows:
            copy.write_row(row)
