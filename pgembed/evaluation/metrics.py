"""What a ranking is worth: nDCG@10, MRR@10 and recall@1, 10 and 100, query by query.

The definitions are those of trec_eval (linear gain, recall over all relevant documents); a test compares with it. Its
Python package is not used at run time: it has no wheel for Linux on ARM and brings 113 MB of SciPy.
"""

import math
from collections.abc import Mapping, Sequence

METRICS = ("ndcg@10", "mrr@10", "recall@1", "recall@10", "recall@100")
DEPTH = 100  # documents of a ranking that a metric looks at

Judgements = Mapping[str, Mapping[str, int]]
"""Query id → document id → relevance; above zero is relevant, and what is not judged is not relevant."""
Scores = dict[str, dict[str, float]]
"""Query id → metric → value in [0, 1]."""


def score_rankings(rankings: Mapping[str, Sequence[str]], judgements: Judgements) -> Scores:
    """Score each judged query's ranking, a list of distinct document ids with the best first; a missing one counts 0.

    Raises:
        ValueError: a query has no relevant document, so that nothing can be said about it.
    """
    return {query: score_ranking(rankings.get(query, ()), judged) for query, judged in judgements.items()}


def score_ranking(ranking: Sequence[str], judged: Mapping[str, int]) -> dict[str, float]:
    """Score one ranking. Raises ValueError if nothing in `judged` is relevant."""
    relevant = {document: gain for document, gain in judged.items() if gain > 0}
    if not relevant:
        raise ValueError("a query without a relevant document cannot be scored")
    gains = [relevant.get(document, 0) for document in ranking[:DEPTH]]
    ideal = sorted(relevant.values(), reverse=True)
    first = next((place for place, gain in enumerate(gains[:10], 1) if gain), None)
    return {
        "ndcg@10": _discounted(gains[:10]) / _discounted(ideal[:10]),
        "mrr@10": 1 / first if first else 0.0,
        **{f"recall@{k}": sum(map(bool, gains[:k])) / len(relevant) for k in (1, 10, 100)},
    }


def _discounted(gains: Sequence[int]) -> float:
    """Discounted cumulative gain.

    Source: Järvelin and Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques", with the discount
    log2(rank + 1) that trec_eval and BEIR use.
    """
    return sum(gain / math.log2(place + 1) for place, gain in enumerate(gains, 1))
