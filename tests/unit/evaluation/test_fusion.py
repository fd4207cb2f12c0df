"""BM25 and reciprocal rank fusion in NumPy, against the formulas written out."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgembed.evaluation.dataset import Dataset
from pgembed.evaluation.fusion import Fusion, fuse, tune_fusion
from pgembed.evaluation.lexical import rank_by_words

_FUSION = Fusion(rrf_k=60, vector_weight=1, lexical_weight=1, bm25_k1=1.2, bm25_b=0.75)
_WORDS = ["read", "write", "parse", "send", "close"]


def test_the_worked_example_of_two_rankings() -> None:
    # 7 is second and first: 1/62 + 1/61; 3 first and nowhere: 1/61; 5 third and second; 9 nowhere and third
    assert fuse([3, 7, 5], [7, 5, 9], _FUSION) == [7, 5, 3, 9]
    words_count_little = Fusion(60, 1, 0.01, 1.2, 0.75)
    assert fuse([3, 7, 5], [7, 5, 9], words_count_little) == [3, 7, 5, 9]
    assert fuse([3, 7, 5], [7, 5, 9], _FUSION, depth=2) == [7, 5]
    assert fuse([8], [2], _FUSION) == [2, 8]  # equal scores: by number


@given(
    st.lists(st.lists(st.sampled_from(_WORDS), max_size=6), min_size=1, max_size=12),
    st.lists(st.sampled_from([*_WORDS, "unknown"]), max_size=4),
    st.floats(0, 3),
    st.floats(0, 1),
)
def test_words_rank_as_the_formula_says(documents: list[list[str]], asked: list[str], k1: float, b: float) -> None:
    sets = [set(words) for words in documents]
    average = max(sum(map(len, sets)) / len(sets), 1)
    scores = []
    for words in sets:
        score = 0.0
        for word in sorted(words & set(asked)):
            df = sum(word in other for other in sets)
            idf = math.log(1 + (len(sets) - df + 0.5) / (df + 0.5))
            score += idf * (k1 + 1) / (1 + k1 * (1 - b + b * len(words) / average))
        scores.append(score)
    (ranking,) = rank_by_words([" ".join(words) for words in documents], [" ".join(asked)], k1=k1, b=b)
    assert set(ranking) == {number for number, score in enumerate(scores) if score > 0}
    for before, after in pairwise(ranking):
        assert scores[before] >= scores[after] - 1e-12
        if sets[before] == sets[after]:
            assert before < after


def test_identifiers_are_split_as_everywhere() -> None:
    rankings = rank_by_words(["def parseHTTPHeader(): ...", "def f(): ..."], ["http header", "nothing"], k1=1.2, b=0.75)
    assert rankings == [[0], []]


@pytest.mark.parametrize(("useful", "expected"), [(True, "words help"), (False, "words harm")])
def test_tuning_takes_as_much_of_the_words_as_helps(useful: bool, expected: str) -> None:
    names = [f"d{number}" for number in range(30)]
    dataset = Dataset(
        "made-up",
        {f"q{n}": f"query {n}" for n in range(20)},
        {name: f"text of {name}" for name in names},
        {f"q{n}": {names[n]: 1} for n in range(20)},
    )
    place = {name: number for number, name in enumerate(dataset.document_order)}
    right = [place[names[n]] for n in range(20)]
    other = [[number for number in range(30) if number != answer] for answer in right]
    third = [[*rest[:2], answer, *rest[2:]] for rest, answer in zip(other, right, strict=True)]
    first = [[answer, *rest] for rest, answer in zip(other, right, strict=True)]
    by_vector, by_words = (third, first) if useful else (first, [rest[10:] for rest in other])
    tuned = tune_fusion(dataset, by_vector, by_words, _FUSION)
    assert (tuned.vector, tuned.lexical) == pytest.approx((0.5, 1.0) if useful else (1.0, 0.0))
    assert len(tuned.trials) == len({(trial.rrf_k, trial.lexical_weight) for trial in tuned.trials}) > 10
    assert tuned.best.value == max(trial.value for trial in tuned.trials)
    weights = sorted({trial.lexical_weight for trial in tuned.trials})
    if useful:
        # weighed alike, only what is first by vectors and second by words stays above it: 1/61 + 1/62 > 1/63 + 1/61
        assert tuned.best.value == pytest.approx(1 / math.log2(3)), expected
        assert tuned.over_vector.better
    else:
        assert tuned.best.lexical_weight == weights[0], expected  # the least there is
        assert tuned.over_vector.difference == pytest.approx(tuned.best.value - 1.0)
