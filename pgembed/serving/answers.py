"""What the API answers, as /openapi.json describes it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgembed.overview import Overview
from pgembed.serving.code import Shown
from pgembed.vectors.example import Example
from pgembed.vectors.explain import Explanation
from pgembed.vectors.generations import GenerationSummary
from pgembed.vectors.search import Hit


@dataclass(frozen=True)
class Failure:
    """What every request is told that could not be answered."""

    error: str
    message: str
    remedy: str | None


@dataclass(frozen=True)
class Answering:
    """The generation that an answer is from: all of it."""

    id: int
    encoder: str


@dataclass(frozen=True)
class Found:
    """The hits of a search, best first."""

    query: str
    mode: str
    generation: Answering | None
    """None: words alone were searched."""
    hits: list[Hit]
    excerpts: list[Shown] | None
    """For each hit the lines that share most with the query; only with view=page."""
    notes: list[str]
    """What a person should know: that fewer hits are given than were asked for, that chunks are not found yet."""
    milliseconds: dict[str, float]


@dataclass(frozen=True)
class Contribution:
    """What a ranking gives to a score."""

    part: str
    rank: int | None
    score: float | None
    """By this ranking: a cosine, a BM25."""
    gives: float
    """These add up to the score."""
    formula: str


@dataclass(frozen=True)
class Reason:
    """Why a hit has its score."""

    rank: int
    chunk_id: int
    score: float
    contributions: list[Contribution]
    words: list[str]
    """The query's tokens that it holds, the rarest first."""


@dataclass(frozen=True)
class Explained:
    """Why a search found what it found."""

    reasons: list[Reason]
    explanation: Explanation


@dataclass(frozen=True)
class Side:
    """One generation's hits in a comparison."""

    found: Found
    ranks_there: list[int | None]
    """For each hit its rank on the other side; None: it is not among the hits there."""


@dataclass(frozen=True)
class Compared:
    """Two generations on one query."""

    a: Side
    b: Side
    shared: int
    """Hits on both sides."""


@dataclass(frozen=True)
class Chunk:
    """A chunk, whole."""

    chunk_id: int
    language: str
    kind: str
    symbol: str
    content: str
    docstring: str | None
    token_count: int
    line_count: int
    locations: int
    places: list[dict[str, Any]]
    """The first 50 places: source, path, start_line, end_line, symbol."""
    shown: Shown


@dataclass(frozen=True)
class Neighbours:
    """What is near a chunk: by a generation's vectors, and by words in common."""

    generation: Answering | None
    hits: list[Hit]
    excerpts: list[Shown] | None
    look_alikes: list[dict[str, Any]]
    """chunk_id, jaccard, language, kind, symbol, source, path, start_line, end_line; the nearest 20."""
    notes: list[str]


@dataclass(frozen=True)
class Like:
    """What is like the code at a place, by a generation's vectors."""

    example: Example
    generation: Answering | None
    hits: list[Hit]
    excerpts: list[Shown] | None
    notes: list[str]


@dataclass(frozen=True)
class TripletRow:
    """A triplet, and why it is there."""

    ordinal: int
    kind: str
    split: str
    language: str
    rule: str
    anchor: str
    positive: str
    negative: str
    anchor_id: int
    positive_id: int
    negative_id: int
    positive_jaccard: float
    negative_jaccard: float
    positive_score: float | None
    negative_score: float | None
    blocked: str | None
    """Why a person has marked it as bad."""
    reason: list[tuple[str, str]]
    """Aspect and detail: pgembed.explain_triplet."""
    shown: list[Shown] | None = None
    """Anchor, positive and negative; only with view=page."""


@dataclass(frozen=True)
class TripletPage:
    """A page of triplets in their fixed order."""

    triplets: list[TripletRow]
    page: int
    has_next: bool


@dataclass(frozen=True)
class Counts:
    """Triplets by kind, split, language and rule, and what the triplets are older than."""

    counts: list[dict[str, Any]]
    stale: list[str]


@dataclass(frozen=True)
class Marked:
    """A mark that was set or taken back."""

    ordinal: int
    blocked: str | None


@dataclass(frozen=True)
class Status(Overview):
    """What is in the database and what is happening to it: what `pgembed status --json` tells, and this server."""

    version: str
    filling: list[dict[str, Any]]
    """Those of the generations that are being filled or indexed: vectors so far, of so many chunks."""
    filters: dict[str, list[str]]
    """sources, languages, kinds."""
    answering: Answering | None
    model: str
    """warm, loading, cold, or why it is not there."""


@dataclass(frozen=True)
class Generations:
    """All generations, oldest first."""

    active: int | None
    generations: list[GenerationSummary]


@dataclass(frozen=True)
class Runs:
    """Training runs, newest first."""

    runs: list[dict[str, Any]]


@dataclass(frozen=True)
class Curve:
    """What a training run measured, step by step; columns of equal length."""

    run: int
    steps: dict[str, list[float | None]]
    """step, loss, gradient_norm, learning_rate, zero_loss_share, triplets_per_second; 1,000 steps at most."""
    evaluations: dict[str, list[float | None]]
    """step, loss, ndcg, mrr on validation triplets; step 0 is the base."""


@dataclass(frozen=True)
class EvaluationRow:
    """A measurement: metric → mean, low, high."""

    id: int
    encoder: str
    dataset: str
    documents: int
    queries: int
    settings: dict[str, Any]
    metrics: dict[str, dict[str, float]]
    created_at: datetime
    fingerprint: str


@dataclass(frozen=True)
class Evaluations:
    """Measurements, newest first."""

    evaluations: list[EvaluationRow]
