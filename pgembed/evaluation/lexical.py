"""BM25 over a data set's own documents: what the search by words does on the server, in NumPy and without a budget."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pgembed.evaluation.metrics import DEPTH
from pgembed.tokens import tokens


def rank_by_words(
    documents: Sequence[str], queries: Sequence[str], *, k1: float, b: float, depth: int = DEPTH
) -> list[list[int]]:
    """Return for each query the numbers of at most `depth` documents that share a token with it, best first.

    Equal scores come in the order of the documents. A token counts once a document, as on the server; the server looks
    at the documents with the rarest tokens only, and its ranking may miss some.

    Source: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", with a term frequency
    of 1; idf as in sql/functions/lexical.v01.sql.
    """
    postings, norms = _index(documents, k1, b)
    rankings = []
    for text in queries:
        scores = np.zeros(len(documents))
        for token in sorted(tokens(text)):
            if (holders := postings.get(token)) is not None:
                frequency = len(holders)
                scores[holders] += math.log1p((len(documents) - frequency + 0.5) / (frequency + 0.5))
        scores *= norms
        best = np.argsort(-scores, kind="stable")[:depth]
        rankings.append([int(number) for number in best if scores[number] > 0])
    return rankings


def _index(
    documents: Sequence[str], k1: float, b: float
) -> tuple[Mapping[str, npt.NDArray[np.int64]], npt.NDArray[np.float64]]:
    """Return the numbers of the documents that hold each token, and what the length makes of each document's score."""
    holders: dict[str, list[int]] = {}
    lengths = np.zeros(len(documents))
    for number, text in enumerate(documents):
        words = tokens(text)
        lengths[number] = len(words)
        for word in words:
            holders.setdefault(word, []).append(number)
    average = max(float(lengths.mean()), 1.0)
    norms = (k1 + 1) / (1 + k1 * (1 - b + b * lengths / average))
    return {word: np.array(numbers) for word, numbers in holders.items()}, norms
