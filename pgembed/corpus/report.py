"""What an ingest did."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class IngestReport:
    """What one source's ingest did. Files and chunks are numbers of them."""

    source: str
    root: str
    revision: str | None = None
    files_read: int = 0
    """New and changed: the ones that were cut into chunks."""
    files_changed: int = 0
    """Of these, the ones that an earlier run knew with other bytes."""
    files_unchanged: int = 0
    files_deleted: int = 0
    """Known before, and gone or not selected now."""
    files_empty: int = 0
    """Read, and no chunk in them."""
    files_ignored: int = 0
    """Files and folders that .gitignore or the caller excluded; .git and caches."""
    bytes_read: int = 0
    chunks_new: int = 0
    chunks_reused: int = 0
    """Distinct chunks of the files read that the database had already."""
    chunks_deleted: int = 0
    """Chunks that stand nowhere any more."""
    chunks: int = 0
    """Distinct chunks of this source now."""
    locations: int = 0
    """Places at which they stand in this source."""
    languages: Counter[str] = field(default_factory=Counter)
    """Chunks of the files read, by language."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Files and folders of which nothing is in the database, by reason, as they stand now; `pgembed.rejected_items`
    lists these and the next two."""
    partly_read: Counter[str] = field(default_factory=Counter)
    """Files that gave chunks, and of which a part could not be used."""
    not_read_again: Counter[str] = field(default_factory=Counter)
    """Files and folders that cannot be looked at any more; their chunks are as they were."""
    examples: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """A few paths for each outcome ("left out", "partly read", "not read again") and reason."""
    seconds: float = 0.0

    @property
    def files_per_second(self) -> float:
        """Files looked at per second, the unchanged ones included."""
        return (self.files_read + self.files_unchanged) / self.seconds if self.seconds else 0.0

    def rejected(self, outcome: str) -> Counter[str]:
        """Return the counter of an outcome, as the query `rejected_by_reason` calls it."""
        counter: Counter[str] = getattr(self, outcome.replace(" ", "_"))
        return counter

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        counters = ("languages", "left_out", "partly_read", "not_read_again")
        plain = {name: dict(getattr(self, name)) for name in counters}
        return {**asdict(self), **plain, "files_per_second": self.files_per_second}
