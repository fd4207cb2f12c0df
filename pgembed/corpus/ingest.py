"""Files to rows. Writes `sources`, `source_files`, `code_chunks`, `chunk_locations`, `tokens`, `rejected_items`.

A slice of files is one transaction: a run that is interrupted keeps the slices that it committed, and the next run
reads only the files that differ from what the database knows. Memory holds the list of files and a few slices.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import psycopg

from pgembed.corpus.chunkers import is_current, third_party
from pgembed.corpus.parse import Job, Known, Parsed
from pgembed.corpus.report import IngestReport
from pgembed.corpus.slices import Slice, SliceWriter
from pgembed.corpus.sources import find_or_add, git_revision, only_one
from pgembed.corpus.walk import MAX_FILE_BYTES, Candidate, Ignored, Skipped, shown, walk
from pgembed.corpus.workers import parse_all
from pgembed.db.sql import query
from pgembed.errors import CorpusError
from pgembed.progress import SILENT, Progress, Task

_BATCH_FILES = 40
_BATCH_BYTES = 500_000
_BYTES_A_WORKER = 2_000_000
"""A worker starts in 0.2 s, in which one process reads a megabyte: fewer bytes are not worth another."""


def ingest(
    conn: psycopg.Connection,
    path: Path,
    *,
    name: str | None = None,
    exclude: Sequence[str] = (),
    select: Callable[[str], bool] | None = None,
    max_file_bytes: int = MAX_FILE_BYTES,
    jobs: int = 1,
    progress: Progress = SILENT,
) -> IngestReport:
    """Bring the source at `path`, a folder or one file, up to date with its files, and return what was done.

    `exclude` are patterns as in .gitignore. `select` narrows the source to the files that it accepts, by their path
    relative to the root; what it refuses is not part of the source. `jobs` processes read and cut the files.

    Raises:
        CorpusError: `path` does not exist or cannot be a source, or a pattern cannot be read.
    """
    started = time.monotonic()
    root = Path(path).expanduser().resolve()
    if not root.exists():
        raise CorpusError(
            f"{path} does not exist.",
            remedy="Give a folder or a file of code. What was ingested from one that is gone stays until "
            "`pgembed sources forget NAME`.",
        )
    if shown(str(root)) != str(root):
        raise CorpusError(f"The path {shown(str(root))} is not UTF-8, or too long.", remedy="Rename the folder.")
    third_party()  # a chunker that cannot be loaded ends the run here, and not file by file
    source_id, source_name = find_or_add(conn, root, name, progress)
    with only_one(conn, source_id, source_name, progress):
        report = IngestReport(source_name, str(root), git_revision(root))
        base, items, report.files_ignored = _list(root, exclude, select, max_file_bytes)
        known = {
            row[0]: Known(bytes(row[1]), *row[2:])
            for row in conn.execute(query("known_files"), {"source_id": source_id})
        }
        if known and not items:
            raise CorpusError(
                f"No file of code is left in {path}, where {len(known):,} were: nothing was changed.",
                remedy="Is a disk not mounted, or all of it left out by --exclude? "
                f"Where it is so: pgembed sources forget {source_name}",
            )
        _Run(conn, SliceWriter(conn, source_id, report), report, known).run(
            base, items, max_file_bytes=max_file_bytes, jobs=jobs, progress=progress
        )
        row = conn.execute(query("source_totals"), {"source_id": source_id}).fetchone()
        report.chunks, report.locations = row or (0, 0)
        for _, outcome, reason, count, examples in conn.execute(query("rejected_by_reason"), {"source_id": source_id}):
            report.rejected(outcome)[reason] = count
            report.examples.setdefault(outcome, {})[reason] = examples
        report.seconds = time.monotonic() - started
        return report


class _Run:
    """One run over one source."""

    def __init__(
        self, conn: psycopg.Connection, writer: SliceWriter, report: IngestReport, known: dict[str, Known]
    ) -> None:
        self.conn = conn
        self.writer = writer
        self.report = report
        self.known = known
        self.part = Slice()
        self.unchanged: list[str] = []
        self.seen: list[str] = []
        """Paths that this run read or left out: their remarks are right already."""

    def run(
        self, base: Path, items: list[Candidate | Skipped], *, max_file_bytes: int, jobs: int, progress: Progress
    ) -> None:
        report = self.report
        to_read: list[Candidate] = []
        for item in items:
            if isinstance(item, Skipped):
                self._leave_out(item)
            elif self._is_unchanged(item):
                report.files_unchanged += 1
                self.unchanged.append(item.path)
            else:
                to_read.append(item)
        read_bytes = sum(item.size_bytes for item in to_read)
        batches = (
            [Job(str(base), item.path, max_file_bytes, self.known.get(item.path)) for item in batch]
            for batch in _batches(to_read)
        )
        parsed = parse_all(batches, max(1, min(jobs, read_bytes // _BYTES_A_WORKER)))
        with progress.task(f"ingesting {report.source}", len(items), "files") as task, closing(parsed):
            task.advance(len(items) - len(to_read))
            for file in (file for batch in parsed for file in batch):
                self._take(file)
                if self.part.is_full():
                    self._write(task)
            self._write(task)
        gone = self._gone(items)
        report.files_deleted = len(gone)
        has_changed = bool(gone or report.chunks_new or report.chunks_deleted)
        kept = [path for path in self.known if path not in gone]
        self.writer.finish(sorted(gone), seen=[*self.seen, *kept], unchanged=self.unchanged, has_changed=has_changed)

    def _is_unchanged(self, item: Candidate) -> bool:
        known = self.known.get(item.path)
        return (
            known is not None
            and (known.size_bytes, known.modified_ns) == (item.size_bytes, item.modified_ns)
            and is_current(item.path, known.language, known.chunker)
        )

    def _leave_out(self, item: Skipped) -> None:
        self.part.rejects[item.path, item.reason] = item.detail
        self.seen.append(item.path)

    def _take(self, parsed: Parsed) -> None:
        report = self.report
        self.part.add(parsed)
        self.seen.append(parsed.path)
        if parsed.unusable is not None:
            return
        if parsed.is_same:
            report.files_unchanged += 1
            return
        report.files_read += 1
        report.bytes_read += parsed.size_bytes
        report.files_changed += parsed.path in self.known
        report.files_empty += not parsed.chunks
        for _, chunk, _ in parsed.chunks:
            report.languages[chunk.language] += 1

    def _write(self, task: Task) -> None:
        part, self.part = self.part, Slice()
        if part.parsed or part.rejects:
            self.writer.write(part)
            task.advance(len(part.parsed))

    def _gone(self, items: list[Candidate | Skipped]) -> set[str]:
        """Return the known files that are not there; below a folder that could not be listed, nobody knows."""
        there = {item.path for item in items}
        unlisted = tuple(
            "" if item.path == "." else f"{item.path}/"
            for item in items
            if isinstance(item, Skipped) and item.reason == "unreadable"
        )
        return {path for path in self.known if path not in there and not (unlisted and path.startswith(unlisted))}


def _list(
    root: Path, exclude: Sequence[str], select: Callable[[str], bool] | None, max_file_bytes: int
) -> tuple[Path, list[Candidate | Skipped], int]:
    """Return the folder that paths are relative to, what is there, and how much is excluded."""
    if root.is_dir():
        ignored = Ignored()
        found = walk(root, exclude=exclude, max_file_bytes=max_file_bytes, ignored=ignored)
        items = [item for item in found if select is None or select(item.path)]
        return root, items, ignored.count
    status = root.stat()
    return root.parent, [Candidate(root.name, status.st_size, status.st_mtime_ns)], 0


def _batches(items: Iterable[Candidate]) -> Iterator[list[Candidate]]:
    batch: list[Candidate] = []
    size = 0
    for item in items:
        batch.append(item)
        size += item.size_bytes
        if len(batch) >= _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
