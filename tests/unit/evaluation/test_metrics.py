"""The metrics against cases worked by hand, against trec_eval, and against what must hold for any ranking."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgembed.evaluation.metrics import METRICS, score_ranking, score_rankings

_DOCUMENTS = [f"d{n}" for n in range(130)]
_rankings = st.permutations(_DOCUMENTS).flatmap(
    lambda documents: st.integers(0, len(documents)).map(lambda length: documents[:length])
)
_judged = st.dictionaries(st.sampled_from(_DOCUMENTS), st.integers(0, 3), min_size=1).filter(
    lambda judged: any(judged.values())
)


def test_one_relevant_document_at_rank_three() -> None:
    assert score_ranking(["a", "b", "c", "d"], {"c": 1}) == {
        "ndcg@10": pytest.approx(0.5),  # 1 / log2(4)
        "mrr@10": pytest.approx(1 / 3),
        "recall@1": 0,
        "recall@10": 1,
        "recall@100": 1,
    }


def test_two_relevant_documents_and_one_of_them_far_down() -> None:
    ranking = [f"x{n}" for n in range(1, 51)]
    scores = score_ranking(ranking, {"x2": 1, "x50": 1})
    assert scores["ndcg@10"] == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))
    assert scores["mrr@10"] == 0.5
    assert (scores["recall@1"], scores["recall@10"], scores["recall@100"]) == (0, 0.5, 1)


def test_graded_relevance_counts_linearly() -> None:
    # gains 1, 3, 0 against the ideal 3, 1
    scores = score_ranking(["a", "b", "c"], {"a": 1, "b": 3, "c": 0})
    assert scores["ndcg@10"] == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))


def test_the_eleventh_and_the_hundred_and_first_rank_are_outside() -> None:
    ranking = [f"x{n}" for n in range(1, 131)]
    assert score_ranking(ranking, {"x11": 1}) == {
        "ndcg@10": 0, "mrr@10": 0, "recall@1": 0, "recall@10": 0, "recall@100": 1,
    }  # fmt: skip
    assert set(score_ranking(ranking, {"x101": 1}).values()) == {0}


def test_a_query_without_a_ranking_counts_zero() -> None:
    scores = score_rankings({"q1": ["a"]}, {"q1": {"a": 1}, "q2": {"a": 1}})
    assert set(scores["q1"].values()) == {1}
    assert set(scores["q2"].values()) == {0}


def test_a_query_without_a_relevant_document_cannot_be_scored() -> None:
    with pytest.raises(ValueError, match="relevant"):
        score_rankings({"q": ["a"]}, {"q": {"a": 0}})


@given(ranking=_rankings, judged=_judged)
def test_every_metric_lies_between_zero_and_one(ranking: list[str], judged: dict[str, int]) -> None:
    scores = score_ranking(ranking, judged)
    assert tuple(scores) == METRICS
    assert all(0 <= value <= 1 + 1e-12 for value in scores.values())
    assert scores["recall@1"] <= scores["recall@10"] <= scores["recall@100"]


@given(judged=_judged)
def test_the_ideal_order_is_perfect(judged: dict[str, int]) -> None:
    ideal = sorted(_DOCUMENTS, key=lambda document: -judged.get(document, 0))
    scores = score_ranking(ideal, judged)
    assert scores["ndcg@10"] == pytest.approx(1)
    assert scores["mrr@10"] == 1
    assert scores["recall@100"] == min(1, 100 / sum(gain > 0 for gain in judged.values()))


@given(ranking=_rankings, judged=_judged, data=st.data())
def test_the_order_among_irrelevant_documents_does_not_matter(
    ranking: list[str], judged: dict[str, int], data: st.DataObject
) -> None:
    places = [n for n, document in enumerate(ranking) if not judged.get(document)]
    shuffled = list(ranking)
    for place, other in zip(places, data.draw(st.permutations(places)), strict=True):
        shuffled[place] = ranking[other]
    assert score_ranking(shuffled, judged) == score_ranking(ranking, judged)


@given(ranking=_rankings, judged=_judged)
def test_trec_eval_says_the_same(ranking: list[str], judged: dict[str, int]) -> None:
    pytrec_eval: Any = pytest.importorskip("pytrec_eval")
    ranking = ranking or ["unjudged"]  # trec_eval leaves out a query without a ranking
    measures = {"ndcg_cut.10", "recip_rank", "recall.1,10,100"}
    run = {"q": {document: float(-place) for place, document in enumerate(ranking)}}
    theirs = pytrec_eval.RelevanceEvaluator({"q": judged}, measures).evaluate(run)["q"]
    ours = score_ranking(ranking, judged)
    assert ours["ndcg@10"] == pytest.approx(theirs["ndcg_cut_10"])
    # it has no MRR@10: its reciprocal rank looks at the whole ranking
    assert ours["mrr@10"] == pytest.approx(theirs["recip_rank"] if theirs["recip_rank"] >= 0.0999 else 0)
    for k in (1, 10, 100):
        assert ours[f"recall@{k}"] == pytest.approx(theirs[f"recall_{k}"])
