"""What the search by words reads, and what search is told."""

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, Computed, ForeignKey, Index, Integer, text
from sqlalchemy.orm import Mapped, mapped_column

from pgembed.db.models.base import Base
from pgembed.db.models.corpus import CodeChunk


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
