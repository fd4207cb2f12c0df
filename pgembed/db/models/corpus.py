"""The code as it was read: sources, files, chunks and where they stand, their tokens, and what was left out."""

from datetime import datetime

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from pgembed.db.models.base import Base, Identified, empty_text, now


class Source(Identified, Base):
    """A body of code."""

    __tablename__ = "sources"
    name: Mapped[str] = mapped_column(unique=True)
    root: Mapped[str]
    revision: Mapped[str | None]
    created_at: Mapped[datetime] = now()
    ingested_at: Mapped[datetime | None]


class SourceFile(Base):
    """A file as it was last read."""

    __tablename__ = "source_files"
    source_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(Source.id, ondelete="CASCADE"), primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[bytes]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    modified_ns: Mapped[int] = mapped_column(BigInteger)
    language: Mapped[str | None]
    chunker: Mapped[str]
    __table_args__ = (CheckConstraint("octet_length(sha256) = 32"),)


class CodeChunk(Identified, Base):
    """One distinct piece of code, content-addressed."""

    __tablename__ = "code_chunks"
    sha256: Mapped[bytes] = mapped_column(unique=True)
    language: Mapped[str]
    kind: Mapped[str]
    symbol: Mapped[str] = empty_text()
    content: Mapped[str]
    docstring: Mapped[str | None]
    body: Mapped[str]
    token_ids: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    token_count: Mapped[int | None] = mapped_column(Computed("cardinality(token_ids)", persisted=True))
    line_count: Mapped[int]
    created_at: Mapped[datetime] = now()
    __table_args__ = (
        CheckConstraint("octet_length(sha256) = 32"),
        Index("code_chunks_language_idx", "language"),
        Index("code_chunks_kind_idx", "kind"),
        Index("code_chunks_symbol_idx", "symbol", postgresql_using="hash"),
    )


class ChunkLocation(Base):
    """Where a chunk stands."""

    __tablename__ = "chunk_locations"
    source_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    start_line: Mapped[int] = mapped_column(primary_key=True)
    chunk_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(CodeChunk.id, ondelete="CASCADE"), primary_key=True)
    end_line: Mapped[int]
    symbol: Mapped[str] = empty_text()
    __table_args__ = (
        ForeignKeyConstraint(["source_id", "path"], [SourceFile.source_id, SourceFile.path], ondelete="CASCADE"),
        Index("chunk_locations_chunk_id_idx", "chunk_id"),
        Index("chunk_locations_symbol_idx", "symbol", postgresql_using="hash"),
    )


class Token(Base):
    """A word of the token sets."""

    __tablename__ = "tokens"
    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    token: Mapped[str] = mapped_column(unique=True)
    document_frequency: Mapped[int] = mapped_column(server_default=text("0"))
    lexical_frequency: Mapped[int] = mapped_column(server_default=text("0"))


class RejectedItem(Identified, Base):
    """Input that could not be used: where, why, when."""

    __tablename__ = "rejected_items"
    stage: Mapped[str]
    source_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey(Source.id, ondelete="CASCADE"))
    path: Mapped[str | None]
    chunk_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey(CodeChunk.id, ondelete="CASCADE"))
    reason: Mapped[str]
    detail: Mapped[str] = empty_text()
    created_at: Mapped[datetime] = now()
    __table_args__ = (
        UniqueConstraint("stage", "source_id", "path", "chunk_id", "reason", postgresql_nulls_not_distinct=True),
    )
