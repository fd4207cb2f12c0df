"""What the routes share: the database, the models at work, the counters; and what each request may ask."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from fastapi import Path, Query

from pgembed.serving.database import Database
from pgembed.serving.failures import Json
from pgembed.serving.metrics import Metrics
from pgembed.serving.models import Models
from pgembed.vectors.question import Question

MOST_HITS = 500
"""In one answer: a person reads a page of them, and each carries its code."""

_BIGINT = 2**63 - 1
Number = Annotated[int, Path(ge=1, le=_BIGINT)]
GenerationId = Annotated[int | None, Query(ge=1, le=_BIGINT, description="This generation, not the active one.")]
View = Annotated[
    Literal["data", "page"], Query(description="page: with excerpts of the code, highlighted, as the page shows them.")
]


@dataclass(frozen=True)
class Site:
    """One server's parts."""

    database: Database
    models: Models
    metrics: Metrics


@dataclass(frozen=True)
class Limits:
    """Which chunks may be hits, and how many."""

    k: Annotated[int, Query(ge=1, description=f"Hits; {MOST_HITS} at most are given.")] = 10
    language: Annotated[str | None, Query(max_length=500, description="Only this language, such as python.")] = None
    path: Annotated[
        str | None, Query(max_length=2000, description="Only below this path: src/auth, or a glob: src/*.")
    ] = None
    source: Annotated[str | None, Query(max_length=500, description="Only this source.")] = None
    kind: Annotated[str | None, Query(max_length=500, description="Only function, method, class or window.")] = None
    exact: Annotated[bool, Query(description="Compare with every vector; leave the index out.")] = False
    collapse: Annotated[bool, Query(description="Fold near-duplicates of a hit into it.")] = True

    def question(self) -> Question:
        """Return the question that says nothing yet of what is looked for."""
        return Question(
            min(self.k, MOST_HITS), self.language or None, self.path or None, self.source or None, self.kind or None,
            self.exact, self.collapse,
        )  # fmt: skip

    def notes(self) -> list[str]:
        """Return what a person should know of these limits."""
        if self.k <= MOST_HITS:
            return []
        return [
            f"{self.k:,} hits were asked for; {MOST_HITS} at most are given in one answer. "
            "Narrow the search by language, path, source or kind, or ask the SQL function pgembed.hybrid_search."
        ]


def answer(value: Any) -> Json:
    """Return one of `answers` as JSON."""
    return Json(asdict(value))
