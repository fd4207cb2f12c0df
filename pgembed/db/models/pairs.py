"""Pairs of chunks that look alike, and what the join that finds them works with."""

from datetime import datetime
from typing import Any

from pgvector.sqlalchemy import SPARSEVEC
from sqlalchemy import ARRAY, BigInteger, CheckConstraint, ForeignKey, Index, Integer, text
from sqlalchemy.dialects.postgresql import BIT as PG_BIT
from sqlalchemy.orm import Mapped, mapped_column

from pgembed.db.models.base import Base, Identified, now, zero


class CandidatePair(Base):
    """Two chunks that look alike."""

    __tablename__ = "candidate_pairs"
    # held by triggers, a statement at a time: see sql/tables/set_wise_keys.v01.sql
    chunk_a: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    chunk_b: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    intersection: Mapped[int]
    jaccard: Mapped[float]
    __table_args__ = (CheckConstraint("chunk_a < chunk_b"), Index("candidate_pairs_chunk_b_idx", "chunk_b"))


class JaccardRank(Base):
    """A frequent token's place in the order of the Jaccard join, behind all that have none."""

    __tablename__ = "jaccard_ranks"
    token_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    rank: Mapped[int] = mapped_column(unique=True)
    __table_args__ = (
        {
            "comment": "The order of tokens in the Jaccard join: "
            "those that are not here by falling id, then these by rank"
        },
    )


class JaccardSet(Base):
    """A chunk's token set, in the forms that the join's filters need."""

    __tablename__ = "jaccard_sets"
    # held by triggers, a statement at a time: see sql/tables/set_wise_keys.v01.sql
    chunk_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    n: Mapped[int]
    prefix: Mapped[list[int]] = mapped_column(
        ARRAY(Integer),
        comment="The first of the set's tokens in that order, each by its rank or by its negative id: "
        "sets with Jaccard ≥ t share one",
    )
    members: Mapped[Any | None] = mapped_column(SPARSEVEC)
    sketch: Mapped[str] = mapped_column(PG_BIT(256))


class QueuedPair(Base):
    """A set whose pairs with all others are still to be found."""

    __tablename__ = "pair_queue"
    chunk_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey(JaccardSet.chunk_id, ondelete="CASCADE"), primary_key=True
    )


class PairRun(Identified, Base):
    """A run of the Jaccard join: with which threshold, over how much."""

    __tablename__ = "pair_runs"
    mode: Mapped[str]
    state: Mapped[str]
    min_jaccard: Mapped[float]
    min_tokens: Mapped[int]
    chunks: Mapped[int] = zero()
    sets: Mapped[int] = zero()
    pairs: Mapped[int] = zero()
    seconds: Mapped[float] = mapped_column(server_default=text("0"))
    started_at: Mapped[datetime] = now()
    finished_at: Mapped[datetime | None]
    approximate: Mapped[bool] = mapped_column(server_default=text("false"))
    band_rows: Mapped[int | None]
    bands: Mapped[int | None]
    expected_recall: Mapped[float | None]
    copy_recall: Mapped[float | None]
    measured_recall: Mapped[float | None]
    recall_chunks: Mapped[int | None]
    recall_pairs: Mapped[int | None] = mapped_column(BigInteger)
    crowded_buckets: Mapped[int] = zero()
    largest_bucket: Mapped[int] = zero()
    left_out: Mapped[int] = zero()


class PairSlice(Base):
    """A slice of a full run."""

    __tablename__ = "pair_slices"
    run_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(PairRun.id, ondelete="CASCADE"), primary_key=True)
    ordinal: Mapped[int] = mapped_column(primary_key=True)
    low_n: Mapped[int]
    low_id: Mapped[int] = mapped_column(BigInteger)
    high_n: Mapped[int]
    high_id: Mapped[int] = mapped_column(BigInteger)
    sets: Mapped[int] = mapped_column(BigInteger)
    pairs: Mapped[int | None] = mapped_column(BigInteger)


class JaccardSignature(Base):
    """A set's MinHash signature: one bucket for each band."""

    __tablename__ = "jaccard_signatures"
    chunk_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey(JaccardSet.chunk_id, ondelete="CASCADE"), primary_key=True
    )
    band_rows: Mapped[int]
    buckets: Mapped[list[int]] = mapped_column(ARRAY(Integer))


class CrowdedBucket(Base):
    """A set's place in a bucket that holds more than are compared all with all."""

    __tablename__ = "crowded_buckets"
    bucket: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    place: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    chunk_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(JaccardSet.chunk_id, ondelete="CASCADE"))
    __table_args__ = (Index("crowded_buckets_chunk_id_idx", "chunk_id"),)
