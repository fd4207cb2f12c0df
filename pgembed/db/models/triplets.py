"""What mining is told, splits, and the triplets that it made."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from pgembed.db.models.base import Base, now
from pgembed.db.models.corpus import CodeChunk


class MiningSetting(Base):
    """What mining is told, in numbers."""

    __tablename__ = "mining_settings"
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]
    least: Mapped[float]
    most: Mapped[float]
    whole: Mapped[bool]
    description: Mapped[str]


class MiningExclusion(Base):
    """What mining leaves out, in patterns."""

    __tablename__ = "mining_exclusions"
    name: Mapped[str] = mapped_column(primary_key=True)
    field: Mapped[str]
    pattern: Mapped[str]
    reason: Mapped[str]
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))


class ChunkBlock(Base):
    """A chunk that a person has marked as bad: it is in no triplet."""

    __tablename__ = "chunk_blocks"
    sha256: Mapped[bytes] = mapped_column(primary_key=True)
    reason: Mapped[str]
    created_at: Mapped[datetime] = now()
    __table_args__ = (CheckConstraint("octet_length(sha256) = 32"),)


class TripletBlock(Base):
    """A triplet that a person has marked as bad, by its chunks' sha256."""

    __tablename__ = "triplet_blocks"
    anchor: Mapped[bytes] = mapped_column(primary_key=True)
    positive: Mapped[bytes] = mapped_column(primary_key=True)
    negative: Mapped[bytes] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str]
    created_at: Mapped[datetime] = now()


class ChunkSplit(Base):
    """Which split a chunk is in; null: in none, and why."""

    __tablename__ = "chunk_splits"
    chunk_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(CodeChunk.id, ondelete="CASCADE"), primary_key=True)
    cluster: Mapped[bytes]
    split: Mapped[str | None]
    reason: Mapped[str | None]
    __table_args__ = (Index("chunk_splits_split_idx", "split"),)


class TripletCandidate(Base):
    """A triplet by its chunks' ids; the views add the texts."""

    __tablename__ = "triplet_candidates"
    ordinal: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    kind: Mapped[str]
    split: Mapped[str]
    anchor_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(CodeChunk.id, ondelete="CASCADE"))
    positive_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(CodeChunk.id, ondelete="CASCADE"))
    negative_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(CodeChunk.id, ondelete="CASCADE"))
    positive_jaccard: Mapped[float]
    negative_jaccard: Mapped[float]
    rule: Mapped[str]
    anchor: Mapped[str | None]
    generation_id: Mapped[int | None] = mapped_column(BigInteger)
    positive_score: Mapped[float | None]
    negative_score: Mapped[float | None]
    __table_args__ = (
        Index("triplet_candidates_kind_idx", "kind", "ordinal"),
        Index("triplet_candidates_anchor_id_idx", "anchor_id"),
        Index("triplet_candidates_positive_id_idx", "positive_id"),
        Index("triplet_candidates_negative_id_idx", "negative_id"),
    )


class TripletState(Base):
    """What the triplets were made from; one row at most."""

    __tablename__ = "triplet_state"
    only_row: Mapped[bool] = mapped_column(server_default=text("true"), primary_key=True)
    made_at: Mapped[datetime]
    inputs: Mapped[dict[str, Any]]
    report: Mapped[dict[str, Any]]
