"""Generations of vectors, the pointer to the active one, and what measurements found."""

from datetime import datetime
from typing import Any

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import BigInteger, ForeignKey, Index, literal_column, text
from sqlalchemy.orm import Mapped, mapped_column

from pgembed.db.models.base import Base, Identified, empty_json, now
from pgembed.db.models.corpus import CodeChunk
from pgembed.db.models.encoders import Encoder


class Generation(Identified, Base):
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
    metrics: Mapped[dict[str, Any]] = empty_json()
    error: Mapped[str | None]
    created_at: Mapped[datetime] = now()
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
    activated_at: Mapped[datetime] = now()


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


class Evaluation(Identified, Base):
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
    created_at: Mapped[datetime] = now()
