"""Files to rows. Writes `sources`, `source_files`, `code_chunks`, `chunk_locations`, `tokens`, `rejected_items`.

A slice of files is one transaction: a run that is interrupted keeps the slices that it committed, and the next run
reads only the files that differ from what the database knows.
"""

import hashlib
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from pgembed.corpus.chunks import VERSION, Chunk, chunk_text
from pgembed.corpus.languages import Language, language_of
from pgembed.corpus.read import Unusable, decode, read_bytes
from pgembed.corpus.tokens import tokens
from pgembed.corpus.walk import Candidate, Ignored, walk
from pgembed.db.sql import query
from pgembed.errors import CorpusError
from pgembed.progress import SILENT, Progress, Task

MAX_FILE_BYTES = 1_000_000
"""Larger files are data or generated: of 40,000 hand-written source files in large packages none was larger."""

_SLICE_FILES = 400
_SLICE_BYTES = 4_000_000
_SOURCE_LOCK = "SELECT pg_try_advisory_lock(hashtext('pgembed.ingest'), hashtext(%s))"
_SOURCE_UNLOCK = "SELECT pg_advisory_unlock(hashtext('pgembed.ingest'), hashtext(%s))"
_WRITE_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('pgembed.code_chunks', 0))"


@dataclass
class IngestReport:
    """What one source's ingest did."""

    source: str
    root: str
    files_read: int = 0
    files_unchanged: int = 0
    files_deleted: int = 0
    files_ignored: int = 0
    bytes_read: int = 0
    chunks_new: int = 0
    chunks_deleted: int = 0
    chunks: int = 0
    locations: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    """Chunks read in this run, by language."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Files and folders by reason."""
    examples: dict[str, str] = field(default_factory=dict)
    """One path for each reason."""
    seconds: float = 0.0


@dataclass
class _Slice:
    chunks: list[Chunk] = field(default_factory=list)
    locations: list[tuple[bytes, str, int, int, str]] = field(default_factory=list)
    files: list[tuple[str, bytes, int, int, str | None, str]] = field(default_factory=list)
    rejects: list[tuple[str, str, str]] = field(default_factory=list)
    size_bytes: int = 0

    def is_full(self) -> bool:
        return len(self.files) + len(self.rejects) >= _SLICE_FILES or self.size_bytes >= _SLICE_BYTES


def ingest(
    conn: psycopg.Connection,
    root: Path,
    *,
    name: str | None = None,
    exclude: Sequence[str] = (),
    select: Callable[[str], bool] | None = None,
    max_file_bytes: int = MAX_FILE_BYTES,
    progress: Progress = SILENT,
) -> IngestReport:
    """Bring the source at `root` up to date with its files, and return what was done.

    `select` narrows the source to the paths that it accepts; files it refuses are not part of the source.

    Raises:
        CorpusError: `root` is not a folder or file that can be read, or another ingest of this source is at work.
    """
    started = time.monotonic()
    root = root.expanduser().resolve()
    if not root.exists():
        raise CorpusError(f"{root} does not exist.", remedy="Give a folder or a file of code.")
    if root.is_file():
        only = root.name
        root, select = root.parent, lambda path: path == only
    name = name or _source_name(conn, root)
    if not _scalar(conn.execute(_SOURCE_LOCK, (name,))):
        raise CorpusError(
            f"Another ingest of the source {name!r} is at work.", remedy="Wait for it, then run this again."
        )
    try:
        report = IngestReport(source=name, root=str(root))
        _Ingest(conn, root, report, max_file_bytes).run(exclude, select, progress)
        report.seconds = time.monotonic() - started
        return report
    finally:
        if not conn.broken:
            conn.execute(_SOURCE_UNLOCK, (name,))


class _Ingest:
    """One run over one source."""

    def __init__(self, conn: psycopg.Connection, root: Path, report: IngestReport, max_file_bytes: int) -> None:
        self.conn = conn
        self.root = root
        self.report = report
        self.max_file_bytes = max_file_bytes
        parameters = {"name": report.source, "root": str(root), "revision": _git_revision(root)}
        self.source_id = _scalar(conn.execute(query("upsert_source"), parameters))
        for table in ("create_slice_tables", "create_slice_locations", "create_slice_files", "create_slice_rejects"):
            conn.execute(query(table))

    def run(self, exclude: Sequence[str], select: Callable[[str], bool] | None, progress: Progress) -> None:
        known = {
            path: (bytes(sha256), size, modified, chunker)
            for path, sha256, size, modified, chunker in self.conn.execute(
                query("known_files"), {"source_id": self.source_id}
            )
        }
        ignored = Ignored()
        found = [
            item
            for item in walk(self.root, exclude=exclude, max_file_bytes=self.max_file_bytes, ignored=ignored)
            if select is None or select(item.path)
        ]
        self.report.files_ignored = ignored.count
        rejected: set[str] = set()
        part = _Slice()
        unchanged: set[str] = set()
        with progress.task(f"ingesting {self.report.source}", len(found), "files") as task:
            for item in found:
                if isinstance(item, Candidate) and self._is_known(item, known.get(item.path)):
                    self.report.files_unchanged += 1
                    unchanged.add(item.path)
                    task.advance()
                elif isinstance(item, Candidate):
                    self._read(item, part)
                else:
                    self._reject(part, item.path, item.reason, item.detail)
                if part.is_full():
                    rejected |= self._write(part, task)
                    part = _Slice()
            rejected |= self._write(part, task)
        usable = {item.path for item in found if isinstance(item, Candidate)}
        self._forget([path for path in known if path not in usable], rejected | unchanged)
        row = self.conn.execute(query("source_totals"), {"source_id": self.source_id}).fetchone()
        self.report.chunks, self.report.locations = row or (0, 0)

    @staticmethod
    def _is_known(item: Candidate, before: tuple[bytes, int, int, str] | None) -> bool:
        return before is not None and before[1:] == (item.size_bytes, item.modified_ns, VERSION)

    def _read(self, item: Candidate, part: _Slice) -> None:
        data = read_bytes(self.root / item.path, max_file_bytes=self.max_file_bytes)
        if isinstance(data, Unusable):
            self._reject(part, item.path, data.reason, data.detail)
            return
        language = language_of(item.path)
        assert language is not None  # noqa: S101 - the walk gives only files with a language
        label = language.name if isinstance(language, Language) else language
        sha256 = hashlib.sha256(data).digest()
        file = (item.path, sha256, len(data), item.modified_ns, label, VERSION)
        text = decode(data, item.path)
        if isinstance(text, Unusable):
            self._reject(part, item.path, text.reason, text.detail)
            return
        self.report.files_read += 1
        self.report.bytes_read += len(data)
        part.size_bytes += len(data)
        part.files.append(file)
        chunked = chunk_text(text, language)
        if chunked.error_line is not None:
            self._reject(part, item.path, "syntax_error", f"line {chunked.error_line}; what parses was kept", kept=True)
        for chunk in chunked.chunks:
            part.chunks.append(chunk)
            part.locations.append((chunk.sha256, item.path, chunk.start_line, chunk.end_line, chunk.qualified))
            self.report.languages[chunk.language] += 1

    def _reject(self, part: _Slice, path: str, reason: str, detail: str, *, kept: bool = False) -> None:
        part.rejects.append((path, reason, detail))
        self.report.left_out[reason] += 1
        self.report.examples.setdefault(reason, path)
        if not kept:
            part.size_bytes += 100

    def _write(self, part: _Slice, task: Task) -> set[str]:
        """Commit one slice; return the paths that it rejects."""
        conn, parameters = self.conn, {"source_id": self.source_id}
        rejected = [path for path, *_ in part.rejects]
        kept = {path for path, *_ in part.files}
        with conn.transaction():
            conn.execute(_WRITE_LOCK)
            _copy(conn, "COPY pg_temp.slice_chunks FROM STDIN", (
                (c.sha256, c.language, c.kind, c.symbol, c.content, c.docstring, c.body,
                 c.content.count("\n") + 1, sorted(tokens(c.body)))
                for c in part.chunks
            ))  # fmt: skip
            _copy(conn, "COPY pg_temp.slice_locations FROM STDIN", part.locations)
            _copy(conn, "COPY pg_temp.slice_files FROM STDIN", part.files)
            _copy(conn, "COPY pg_temp.slice_rejects FROM STDIN", set(part.rejects))
            conn.execute(query("analyze_slice"))
            conn.execute(query("insert_tokens"))
            self.report.chunks_new += conn.execute(query("insert_chunks")).rowcount
            conn.execute(query("upsert_files"), parameters)
            left = [row[0] for row in conn.execute(query("clear_locations"), parameters)]
            conn.execute(query("insert_locations"), parameters)
            unusable = [path for path in rejected if path not in kept]
            left += [row[0] for row in conn.execute(query("delete_files"), {**parameters, "paths": unusable})]
            self.report.chunks_deleted += conn.execute(query("delete_orphans"), {"chunk_ids": left}).rowcount
            conn.execute(query("clear_rejects"), {**parameters, "paths": [*kept, *rejected]})
            conn.execute(query("insert_rejects"), parameters)
        task.advance(len(kept.union(rejected)))
        return set(rejected)

    def _forget(self, deleted: list[str], seen: set[str]) -> None:
        """Remove what is gone, and bring the counts that depend on everything up to date."""
        conn, parameters = self.conn, {"source_id": self.source_id}
        self.report.files_deleted = len(deleted)
        with conn.transaction():
            conn.execute(_WRITE_LOCK)
            left = [row[0] for row in conn.execute(query("delete_files"), {**parameters, "paths": deleted})]
            self.report.chunks_deleted += conn.execute(query("delete_orphans"), {"chunk_ids": left}).rowcount
            conn.execute(query("clear_other_rejects"), {**parameters, "paths": list(seen)})
            conn.execute(query("count_document_frequencies"))
            conn.execute(query("finish_source"), parameters)
        conn.execute(query("analyze_corpus"))


def _copy(conn: psycopg.Connection, statement: str, rows: Iterable[Sequence[object]]) -> None:
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


def _scalar(cursor: "psycopg.Cursor[tuple[int, ...]]") -> int:
    row = cursor.fetchone()
    assert row is not None  # noqa: S101 - each statement used here gives one row
    return row[0]


def _source_name(conn: psycopg.Connection, root: Path) -> str:
    row = conn.execute(query("source_by_root"), {"root": str(root)}).fetchone()
    return str(row[0]) if row else root.name or "root"


def _git_revision(root: Path) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
