"""SQLAlchemy models of the tables, for people who query pgembed from their own application.

The SQL files are the source; a test holds these against the migrated schema (Alembic's autogenerate finds nothing).
"""

from datetime import datetime
from typing import Any

from pgvector.sqlalchemy import SPARSEVEC, VECTOR
from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Computed,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    Text,
    UniqueConstraint,
    func,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import BIT as PG_BIT
from sqlalchemy.dialects.postgresql import BYTEA, JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgembed.db.migrations import SCHEMA


class Base(DeclarativeBase):
    """Base of all models; `Base.metadata` describes schema pgembed."""

    metadata = MetaData(schema=SCHEMA)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as a plain class attribute
        str: Text,
        bytes: BYTEA,
        datetime: TIMESTAMP(timezone=True),
        dict[str, Any]: JSONB,
    }


class _Identified:
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True, sort_order=-1)


def _now() -> Any:
    return mapped_column(server_default=func.now())


def _empty_json() -> Any:
    return mapped_column(server_default=text("'{}'::jsonb"))


def _empty_text() -> Any:
    return mapped_column(server_default=text("''::text"))


class Source(_Identified, Base):
    """A body of code."""

    __tablename__ = "sources"
    name: Mapped[str] = mapped_column(unique=True)
    root: Mapped[str]
    revision: Mapped[str | None]
    created_at: Mapped[datetime] = _now()
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


class CodeChunk(_Identified, Base):
    """One distinct piece of code, content-addressed."""

    __tablename__ = "code_chunks"
    sha256: Mapped[bytes] = mapped_column(unique=True)
    language: Mapped[str]
    kind: Mapped[str]
    symbol: Mapped[str] = _empty_text()
    content: Mapped[str]
    docstring: Mapped[str | None]
    body: Mapped[str]
    token_ids: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    token_count: Mapped[int | None] = mapped_column(Computed("cardinality(token_ids)", persisted=True))
    line_count: Mapped[int]
    created_at: Mapped[datetime] = _now()
    __table_args__ = (
        CheckConstraint("octet_length(sha256) = 32"),
        Index("code_chunks_language_idx", "language"),
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
    symbol: Mapped[str] = _empty_text()
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


class LexicalDocument(Base):
    """The words of a chunk, its docstring and its symbol: what the search by words reads."""

    __tablename__ = "lexical_documents"
    chunk_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(CodeChunk.id, ondelete="CASCADE"), primary_key=True)
    token_ids: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    length: Mapped[int | None] = mapped_column(Computed("cardinality(token_ids)", persisted=True))
    described: Mapped[bool] = mapped_column(server_default=text("true"))
    __table_args__ = (
        Index("lexical_documents_token_ids_idx", "token_ids", postgresql_using="gin"),
        Index("lexical_documents_length_idx", "length", "chunk_id"),
        Index("lexical_documents_undescribed_idx", "chunk_id", postgresql_where=text("NOT described")),
    )


class LexicalStatistics(Base):
    """How many lexical documents there are, and how long; one row at most."""

    __tablename__ = "lexical_statistics"
    only_row: Mapped[bool] = mapped_column(server_default=text("true"), primary_key=True)
    documents: Mapped[int] = mapped_column(BigInteger)
    average_length: Mapped[float]
    __table_args__ = (CheckConstraint("only_row"),)


class SearchSetting(Base):
    """What search is told, in numbers."""

    __tablename__ = "search_settings"
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]
    least: Mapped[float]
    most: Mapped[float]
    description: Mapped[str]
    __table_args__ = (CheckConstraint("value BETWEEN least AND most"),)


class CandidatePair(Base):
    """Two chunks that look alike."""

    __tablename__ = "candidate_pairs"
    # held by triggers, a statement at a time: see sql/tables/set_wise_keys.v01.sql
    chunk_a: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    chunk_b: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    intersection: Mapped[int]
    jaccard: Mapped[float]
    __table_args__ = (CheckConstraint("chunk_a < chunk_b"), Index("candidate_pairs_chunk_b_idx", "chunk_b"))


class Encoder(_Identified, Base):
    """What an encoder is and which weights it holds."""

    __tablename__ = "encoders"
    name: Mapped[str]
    spec: Mapped[dict[str, Any]]
    fingerprint: Mapped[str] = mapped_column(unique=True)
    licence: Mapped[str]
    created_at: Mapped[datetime] = _now()


class TrainingRun(_Identified, Base):
    """What was trained from what."""

    __tablename__ = "training_runs"
    state: Mapped[str]
    view: Mapped[str]
    filters: Mapped[dict[str, Any]] = _empty_json()
    seed: Mapped[int] = mapped_column(BigInteger)
    hyperparameters: Mapped[dict[str, Any]]
    data_fingerprint: Mapped[str]
    base_encoder_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(Encoder.id))
    encoder_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey(Encoder.id))
    checkpoint_path: Mapped[str | None]
    package_version: Mapped[str]
    metrics: Mapped[dict[str, Any]] = _empty_json()
    error: Mapped[str | None]
    started_at: Mapped[datetime] = _now()
    finished_at: Mapped[datetime | None]
    code_revision: Mapped[str | None]
    validation_fingerprint: Mapped[str | None]


class TrainingMetric(Base):
    """One step of a training run."""

    __tablename__ = "training_metrics"
    run_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(TrainingRun.id, ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    loss: Mapped[float]
    gradient_norm: Mapped[float]
    learning_rate: Mapped[float]
    zero_loss_share: Mapped[float]
    triplets_per_second: Mapped[float]
    recorded_at: Mapped[datetime] = _now()
    anchor_cosine: Mapped[float | None]
    anchor_deviation: Mapped[float | None]
    update_ratio: Mapped[float | None]


class TrainingEvaluation(Base):
    """What a run's model, as it would be delivered after a step, does on validation triplets; step 0 is the base."""

    __tablename__ = "training_evaluations"
    run_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(TrainingRun.id, ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    queries: Mapped[int]
    documents: Mapped[int]
    loss: Mapped[float | None]
    ndcg_10: Mapped[float]
    mrr_10: Mapped[float]
    query_ndcg: Mapped[list[float]] = mapped_column(ARRAY(Double))
    query_mrr: Mapped[list[float]] = mapped_column(ARRAY(Double))
    seconds: Mapped[float]
    recorded_at: Mapped[datetime] = _now()


class Generation(_Identified, Base):
    """One complete set of vectors."""

    __tablename__ = "generations"
    encoder_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(Encoder.id))
    onnx_path: Mapped[str]
    onnx_sha256: Mapped[str]
    dims: Mapped[int]
    state: Mapped[str] = mapped_column(server_default=text("'filling'::text"))
    index_method: Mapped[str] = mapped_column(server_default=text("'ivfflat'::text"))
    lists: Mapped[int | None]
    probes: Mapped[int | None]
    index_recall: Mapped[float | None]
    row_count: Mapped[int | None] = mapped_column(BigInteger)
    metrics: Mapped[dict[str, Any]] = _empty_json()
    error: Mapped[str | None]
    created_at: Mapped[datetime] = _now()
    filled_at: Mapped[datetime | None]
    indexed_at: Mapped[datetime | None]
    activated_at: Mapped[datetime | None]
    retired_at: Mapped[datetime | None]
    __table_args__ = (
        Index("generations_one_active_idx", "state", unique=True, postgresql_where=text("state = 'active'")),
    )


class ActiveGeneration(Base):
    """The pointer that search follows; one row at most."""

    __tablename__ = "active_generation"
    only_row: Mapped[bool] = mapped_column(server_default=text("true"), primary_key=True)
    generation_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(Generation.id))
    previous_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey(Generation.id, ondelete="SET NULL"))
    activated_at: Mapped[datetime] = _now()


class CodeEmbedding(Base):
    """A chunk's vector in a generation."""

    __tablename__ = "code_embeddings"
    generation_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    chunk_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(CodeChunk.id, ondelete="CASCADE"), primary_key=True)
    embedding: Mapped[Any] = mapped_column(VECTOR(2560), nullable=False)
    __table_args__ = (
        Index(
            "code_embeddings_embedding_idx",
            literal_column("(embedding::halfvec(2560))").label("as_halfvec"),
            postgresql_using="ivfflat",
            postgresql_ops={"as_halfvec": "halfvec_cosine_ops"},
            postgresql_with={"lists": 100},
        ),
        {"postgresql_partition_by": "LIST (generation_id)"},
    )


class Evaluation(_Identified, Base):
    """What a measurement found."""

    __tablename__ = "evaluations"
    encoder_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey(Encoder.id))
    generation_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey(Generation.id, ondelete="CASCADE"))
    dataset: Mapped[str]
    fingerprint: Mapped[str]
    documents: Mapped[int]
    queries: Mapped[int]
    settings: Mapped[dict[str, Any]]
    metrics: Mapped[dict[str, Any]]
    per_query: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = _now()


class RejectedItem(_Identified, Base):
    """Input that could not be used: where, why, when."""

    __tablename__ = "rejected_items"
    stage: Mapped[str]
    source_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey(Source.id, ondelete="CASCADE"))
    path: Mapped[str | None]
    chunk_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey(CodeChunk.id, ondelete="CASCADE"))
    reason: Mapped[str]
    detail: Mapped[str] = _empty_text()
    created_at: Mapped[datetime] = _now()
    __table_args__ = (
        UniqueConstraint("stage", "source_id", "path", "chunk_id", "reason", postgresql_nulls_not_distinct=True),
    )


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
    created_at: Mapped[datetime] = _now()
    __table_args__ = (CheckConstraint("octet_length(sha256) = 32"),)


class TripletBlock(Base):
    """A triplet that a person has marked as bad, by its chunks' sha256."""

    __tablename__ = "triplet_blocks"
    anchor: Mapped[bytes] = mapped_column(primary_key=True)
    positive: Mapped[bytes] = mapped_column(primary_key=True)
    negative: Mapped[bytes] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str]
    created_at: Mapped[datetime] = _now()


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


def _zero() -> Any:
    return mapped_column(BigInteger, server_default=text("0"))


class PairRun(_Identified, Base):
    """A run of the Jaccard join: with which threshold, over how much."""

    __tablename__ = "pair_runs"
    mode: Mapped[str]
    state: Mapped[str]
    min_jaccard: Mapped[float]
    min_tokens: Mapped[int]
    chunks: Mapped[int] = _zero()
    sets: Mapped[int] = _zero()
    pairs: Mapped[int] = _zero()
    seconds: Mapped[float] = mapped_column(server_default=text("0"))
    started_at: Mapped[datetime] = _now()
    finished_at: Mapped[datetime | None]
    approximate: Mapped[bool] = mapped_column(server_default=text("false"))
    band_rows: Mapped[int | None]
    bands: Mapped[int | None]
    expected_recall: Mapped[float | None]
    copy_recall: Mapped[float | None]
    measured_recall: Mapped[float | None]
    recall_chunks: Mapped[int | None]
    recall_pairs: Mapped[int | None] = mapped_column(BigInteger)
    crowded_buckets: Mapped[int] = _zero()
    largest_bucket: Mapped[int] = _zero()
    left_out: Mapped[int] = _zero()


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
