"""Encoders, and the runs that trained them."""

from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Double, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from pgembed.db.models.base import Base, Identified, empty_json, now


class Encoder(Identified, Base):
    """What an encoder is and which weights it holds."""

    __tablename__ = "encoders"
    name: Mapped[str]
    spec: Mapped[dict[str, Any]]
    fingerprint: Mapped[str] = mapped_column(unique=True)
    licence: Mapped[str]
    created_at: Mapped[datetime] = now()


class TrainingRun(Identified, Base):
    """What was trained from what."""

    __tablename__ = "training_runs"
    state: Mapped[str]
    view: Mapped[str]
    filters: Mapped[dict[str, Any]] = empty_json()
    seed: Mapped[int] = mapped_column(BigInteger)
    hyperparameters: Mapped[dict[str, Any]]
    data_fingerprint: Mapped[str]
    base_encoder_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(Encoder.id))
    encoder_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey(Encoder.id))
    checkpoint_path: Mapped[str | None]
    package_version: Mapped[str]
    metrics: Mapped[dict[str, Any]] = empty_json()
    error: Mapped[str | None]
    started_at: Mapped[datetime] = now()
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
    recorded_at: Mapped[datetime] = now()
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
    recorded_at: Mapped[datetime] = now()
