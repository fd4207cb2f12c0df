"""One file to what the database stores of it; needs no database, so that other processes can do it."""

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path

from pgembed.corpus.chunk import Chunk, Chunked
from pgembed.corpus.chunkers import choose, is_current
from pgembed.corpus.read import Unusable, decode, read_bytes
from pgembed.tokens import tokens

RACY_NS = 2_000_000_000
"""A file that was written less than this before it was read may be written again within its time stamp's grain (two
seconds on FAT, one on some network file systems). Its time stamp is not stored, so that the next run looks again."""


@dataclass(frozen=True, slots=True)
class Known:
    """A file as the database has it."""

    sha256: bytes
    size_bytes: int
    modified_ns: int
    language: str | None
    chunker: str


@dataclass(frozen=True, slots=True)
class Job:
    """A file to read."""

    base: str
    path: str
    max_file_bytes: int
    known: Known | None = None


@dataclass(slots=True)
class Parsed:
    """What a file gave: chunks, or the reason why there are none."""

    path: str
    unusable: Unusable | None = None
    sha256: bytes = b""
    size_bytes: int = 0
    modified_ns: int = 0
    language: str | None = None
    chunker: str = ""
    is_same: bool = False
    """Its bytes are the ones the database knows; only its time stamp is to be noted."""
    chunks: list[tuple[bytes, Chunk, list[str]]] = field(default_factory=list)
    """Address, chunk, sorted tokens of its body."""
    remarks: list[Unusable] = field(default_factory=list)
    """Parts that were left out of a file that was kept."""


def parse_file(job: Job) -> Parsed:
    """Read one file and cut it. Whatever is wrong with the file is a reason, never an exception."""
    started_ns = time.time_ns()
    read = read_bytes(Path(job.base) / job.path, max_file_bytes=job.max_file_bytes)
    if isinstance(read, Unusable):
        return Parsed(job.path, read)
    parsed = Parsed(
        job.path,
        sha256=hashlib.sha256(read.data).digest(),
        size_bytes=len(read.data),
        modified_ns=read.modified_ns if started_ns - read.modified_ns > RACY_NS else -1,
    )
    known = job.known
    if known and known.sha256 == parsed.sha256 and is_current(job.path, known.language, known.chunker):
        parsed.is_same = True
        return parsed
    text = decode(read.data, job.path)
    if isinstance(text, Unusable):
        return Parsed(job.path, text)
    chunker, parsed.language = choose(job.path, text)
    parsed.chunker = chunker.name
    try:
        chunked = chunker.chunk(text, parsed.language)
    except Exception as error:  # noqa: BLE001 - one file's oddity, or a third party's fault, must not end the run
        return Parsed(job.path, Unusable("chunker_failed", f"{chunker.name}: {type(error).__name__}: {error}"))
    for chunk in chunked.chunks:
        if all(_is_storable(text) for text in (chunk.content, chunk.body, chunk.docstring or "", chunk.qualified)):
            parsed.chunks.append((chunk.sha256, chunk, sorted(tokens(chunk.body))))
        else:
            parsed.remarks.append(
                Unusable("nul_bytes", f"the chunk at line {chunk.start_line} holds NUL or surrogates")
            )
    if chunked.error_lines:
        parsed.remarks.append(Unusable("syntax_error", _describe(chunked)))
    return parsed


def _describe(chunked: Chunked) -> str:
    lines = ", ".join(map(str, chunked.error_lines))
    what = f"left out: {', '.join(chunked.left_out[:5])}" if chunked.left_out else "every definition was kept"
    more = f" and {len(chunked.left_out) - 5:,} more" if len(chunked.left_out) > 5 else ""
    return f"line{'s' if len(chunked.error_lines) > 1 else ''} {lines}; {what}{more}"


def _is_storable(text: str) -> bool:
    if "\0" in text:
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
