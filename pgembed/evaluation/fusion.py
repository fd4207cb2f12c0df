"""Two rankings fused by reciprocal rank, as the search is set to. Reads and writes `search_settings`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import psycopg

from pgembed.db.sql import query
from pgembed.evaluation.bootstrap import PairedTest, paired_bootstrap
from pgembed.evaluation.dataset import Dataset
from pgembed.evaluation.metrics import DEPTH, score_rankings

Connection = psycopg.Connection[Any]

METRIC = "ndcg@10"
"""What the weight is chosen by."""
_CONSTANTS = (5.0, 10.0, 20.0, 60.0)
_WEIGHTS = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)


@dataclass(frozen=True)
class Fusion:
    """The rows of `search_settings` that decide a ranking."""

    rrf_k: float
    vector_weight: float
    lexical_weight: float
    bm25_k1: float
    bm25_b: float


@dataclass(frozen=True)
class FusionTrial:
    """One pair of settings, and what both rankings together are worth with it."""

    rrf_k: float
    lexical_weight: float
    value: float
    """Mean nDCG@10."""


@dataclass(frozen=True)
class TunedFusion:
    """What was tried, and what follows."""

    dataset: str
    queries: int
    documents: int
    vector: float
    """Mean nDCG@10 of the vectors alone."""
    lexical: float
    """The same of the words alone."""
    trials: list[FusionTrial]
    best: FusionTrial
    over_vector: PairedTest
    """nDCG@10 of the best trial minus that of the vectors alone."""


def read_fusion(conn: Connection) -> Fusion:
    """Return the settings as they are now."""
    settings = dict(conn.execute(query("search_settings")).fetchall())
    return Fusion(**{field.name: settings[field.name] for field in fields(Fusion)})


def fuse(by_vector: Sequence[int], by_words: Sequence[int], fusion: Fusion, *, depth: int = DEPTH) -> list[int]:
    """Return at most `depth` documents of the two rankings, best first; equal scores in the order of their numbers.

    Source: Cormack, Clarke and Büttcher 2009, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
    Learning Methods", with a weight for each ranking.
    """
    scores: dict[int, float] = {}
    for ranking, weight in ((by_vector, fusion.vector_weight), (by_words, fusion.lexical_weight)):
        for rank, document in enumerate(ranking, 1):
            scores[document] = scores.get(document, 0) + weight / (fusion.rrf_k + rank)
    return sorted(scores, key=lambda document: (-scores[document], document))[:depth]


def tune_fusion(
    dataset: Dataset, by_vector: Sequence[Sequence[int]], by_words: Sequence[Sequence[int]], fusion: Fusion
) -> TunedFusion:
    """Try pairs of rrf_k and lexical_weight on both rankings of a data set, and say which is best and how sure that is.

    The rankings hold numbers in the data set's `document_order`. Of equal values the smaller weight is better.
    """

    def values(rankings: Iterable[Sequence[int]]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        named = zip(dataset.queries, rankings, strict=True)
        scores = score_rankings({q: [dataset.document_order[n] for n in r] for q, r in named}, dataset.judgements)
        return np.array([[scores[identifier][METRIC]] for identifier in sorted(scores)])

    tried = {}
    for constant in _CONSTANTS:
        for weight in _WEIGHTS:
            setting = replace(fusion, rrf_k=constant, lexical_weight=weight * fusion.vector_weight)
            fused = [fuse(v, w, setting) for v, w in zip(by_vector, by_words, strict=True)]
            tried[constant, setting.lexical_weight] = values(fused)
    trials = [FusionTrial(*pair, float(value.mean())) for pair, value in tried.items()]
    best = max(trials, key=lambda trial: (trial.value, -trial.lexical_weight, trial.rrf_k))
    alone = values(by_vector)
    (test,) = paired_bootstrap(alone, tried[best.rrf_k, best.lexical_weight])
    return TunedFusion(
        dataset.name, len(dataset.queries), len(dataset.documents), float(alone.mean()),
        float(values(by_words).mean()), trials, best, test,
    )  # fmt: skip


def apply_fusion(conn: Connection, chosen: FusionTrial) -> None:
    """Let the search go by `chosen` from now on. Writes `search_settings`."""
    with conn.transaction():
        for name, value in (("rrf_k", chosen.rrf_k), ("lexical_weight", chosen.lexical_weight)):
            conn.execute(query("set_search_setting"), {"name": name, "value": value})
