"""One trial of some options: trained, measured at several shares of interpolation, and left again.

Nothing is written: neither a run nor a checkpoint. Reads the triplet view.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psycopg
import torch

from pgembed.encoders.spec import EncoderSpec
from pgembed.encoders.weights import fingerprint, make_ready
from pgembed.errors import TrainingError
from pgembed.evaluation.bootstrap import paired_bootstrap
from pgembed.evaluation.dataset import Dataset
from pgembed.evaluation.metrics import score_ranking
from pgembed.progress import SILENT, Progress
from pgembed.training.checkpoint import Setting
from pgembed.training.data import DataSummary, count_of, snapshot, summarise
from pgembed.training.determinism import deterministic
from pgembed.training.distributed import ALONE, Processes
from pgembed.training.encode import TextEncoder, encode_together
from pgembed.training.export import resolve_spec
from pgembed.training.journal import Journal
from pgembed.training.loop import check, prepare_model, seeded
from pgembed.training.mixture import copy_weights, mixed
from pgembed.training.model import EncoderModel
from pgembed.training.options import TrainingOptions
from pgembed.training.precision import fastest_attention, resolve_precision
from pgembed.training.runs import ValidationMetrics
from pgembed.training.steps import Work, take_steps
from pgembed.training.validation import ValidationSet, read_validation, validate

Floats = npt.NDArray[np.float64]

_TEXTS_AT_A_TIME = 64
_DEPTH = 10


@dataclass(frozen=True)
class Measured:
    """What the trained weights came to at one share of interpolation."""

    share: float
    score: float
    """nDCG@10 on the validation triplets, less the penalty."""
    ndcg: float
    """As measured there."""
    penalty: float
    """What was lost on the guarding data set beyond doubt; 0 without one."""
    guard: float | None
    """nDCG@10 there."""


class Bench:
    """What the trials of a study have in common: the base, the validation rows, the guard."""

    def __init__(
        self,
        conn: psycopg.Connection,
        options: TrainingOptions,
        *,
        base: str | Path,
        shares: Sequence[float],
        guard: Dataset | None = None,
        among: Processes = ALONE,
        progress: Progress = SILENT,
    ) -> None:
        """Read what every trial reads.

        Raises:
            TrainingError: there are no triplets, or none for validation.
            EncoderError: the base cannot be loaded.
        """
        self._conn, self._shares, self._guard, self._among = conn, sorted(shares), guard, among
        self._spec: EncoderSpec = resolve_spec(base)
        check(options, self._spec)
        self._folders = make_ready(self._spec, progress)
        precision = resolve_precision(options.precision, device=among.device)
        self._bf16 = precision == "bf16"
        self._attention = fastest_attention(precision, options.max_tokens, among.device)
        with snapshot(conn) as reader:
            data = summarise(reader, options)
            code = _code(reader, options)
            held = read_validation(reader, options)
            if held is None:
                raise TrainingError(
                    f"pgembed.{options.view} gives no validation triplets: there is nothing to compare trials by.",
                    remedy="Ingest more code: a share of files is for validation.",
                )
        self._held: ValidationSet = held
        self.available, self.code = data.triplets, code.triplets
        self.identity = {
            "base": fingerprint(self._spec, self._folders),
            "data": data.fingerprint,
            "code": code.fingerprint,
            "validation": held.fingerprint,
            "guard": None if guard is None else guard.fingerprint,
            "precision": "bf16" if self._bf16 else "fp32",
            "shares": self._shares,
        }
        self.base = self._measure_base(options)

    def run(
        self, options: TrainingOptions, *, validated: Callable[[ValidationMetrics], None], progress: Progress = SILENT
    ) -> list[Measured]:
        """Train with these options, and measure the result at every share; `validated` may end it by an error."""
        with (
            snapshot(self._conn) as reader,
            tempfile.TemporaryDirectory() as folder,
            deterministic(),
            seeded(options.seed),
        ):
            model = prepare_model(self._spec, self._folders, options, self._attention).to(self._among.device)
            base = copy_weights(model)
            work = Work(
                reader=reader,
                journal=Journal(None, 0, options),
                among=self._among,
                options=replace(options, checkpoint_every=options.steps + 1),
                data=summarise(reader, options),
                held=self._held,
                model=model,
                base=base,
                bf16=self._bf16,
                setting=Setting({}, {}, {}),
                folder=Path(folder),
                progress=progress,
                validated=validated,
            )
            take_steps(work)
            encode = TextEncoder(self._spec, max_tokens=options.max_tokens)
            found = []
            # one training serves all shares: what is delivered is base + share · (trained − base)
            for share in self._shares:
                with mixed(model, base, share):
                    ndcg = validate(model, encode, self._held, options, step=options.steps, bf16=self._bf16).ndcg
                    guard, penalty = self._look_at_guard(model, encode)
                found.append(Measured(share, ndcg - penalty, ndcg, penalty, guard))
            return found

    def _measure_base(self, options: TrainingOptions) -> Measured:
        with deterministic():
            model = prepare_model(self._spec, self._folders, options, self._attention).to(self._among.device)
            encode = TextEncoder(self._spec, max_tokens=options.max_tokens)
            ndcg = validate(model, encode, self._held, options, step=0, bf16=self._bf16).ndcg
            self._guard_scores: Floats | None = None
            if self._guard is not None:
                self._guard_scores = self._scores(model, encode, self._guard)
        guard = None if self._guard_scores is None else float(self._guard_scores.mean())
        return Measured(0.0, ndcg, ndcg, 0.0, guard)

    def _look_at_guard(self, model: EncoderModel, encode: TextEncoder) -> tuple[float | None, float]:
        """Return nDCG@10 on the guard and the penalty: how far below zero the difference's interval ends."""
        if self._guard is None or self._guard_scores is None:
            return None, 0.0
        scores = self._scores(model, encode, self._guard)
        (test,) = paired_bootstrap(self._guard_scores[:, None], scores[:, None])
        return float(scores.mean()), max(0.0, -test.high)

    def _scores(self, model: EncoderModel, encode: TextEncoder, dataset: Dataset) -> Floats:
        """Return each query's nDCG@10, (Q,): exact search, texts cut where training cuts them."""
        names, queries = dataset.document_order, sorted(dataset.judgements)
        with torch.no_grad():
            body_MD, query_QD = (
                encode_together(model, encode, texts, self._among, bf16=self._bf16, at_most=_TEXTS_AT_A_TIME)
                .float()
                .cpu()
                .numpy()
                for texts in (
                    [("passage", dataset.documents[name]) for name in names],
                    [("query", dataset.queries[name]) for name in queries],
                )
            )
        order_QM = np.argsort(-(query_QD @ body_MD.T), axis=1, kind="stable")[:, :_DEPTH]
        return np.array(
            [
                score_ranking([names[n] for n in order], dataset.judgements[query])["ndcg@10"]
                for query, order in zip(queries, order_QM, strict=True)
            ]
        )


def _code(reader: psycopg.Connection, options: TrainingOptions) -> DataSummary:
    """Return what there is to be mixed in; nothing beside another kind than docstrings."""
    if options.kind != "docstring" or not count_of(reader, options.of_kind("code")):
        return DataSummary("", 0)
    return summarise(reader, options.of_kind("code"))
