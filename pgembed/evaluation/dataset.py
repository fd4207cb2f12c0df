"""A retrieval data set: queries, documents, and which document answers which query."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Dataset:
    """Texts by id, and judgements (query id → document id → relevance). Every query has a relevant document."""

    name: str
    queries: Mapping[str, str]
    documents: Mapping[str, str]
    judgements: Mapping[str, Mapping[str, int]]
    origin: Mapping[str, Any] = field(default_factory=dict)
    """How it came about, for the record: the split, the limits. Not part of what it is."""
    languages: Mapping[str, str] = field(default_factory=dict)
    """Query id → language of the code that answers it, where that is known. Not part of what it is."""

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over queries, documents and judgements, in an order of their own: figures compare if it is equal."""
        digest = hashlib.sha256()
        for part, texts in (("query", self.queries), ("document", self.documents)):
            for identifier in sorted(texts):
                digest.update(json.dumps([part, identifier, texts[identifier]]).encode() + b"\n")
        for identifier in sorted(self.judgements):
            judged = sorted(self.judgements[identifier].items())
            digest.update(json.dumps(["judgements", identifier, judged]).encode() + b"\n")
        return digest.hexdigest()

    @cached_property
    def document_order(self) -> list[str]:
        """The ids in the order of their texts' hashes, which breaks ties between documents of equal distance.

        Such an order knows nothing of relevance. Counting a tie for the relevant document, as "1 + the number scored
        strictly higher" does, gives the same where there is none; but an encoder that has collapsed to one vector for
        everything would then be perfect.
        """
        return sorted(self.documents, key=lambda i: (hashlib.sha256(_bytes(self.documents[i])).digest(), i))


def one_language(answers: Collection[str]) -> str:
    """Return the language of a query, given those of the documents that answer it: theirs, or "several"."""
    return next(iter(answers)) if len(answers) == 1 else "several"


def text_id(text: str) -> str:
    """Return an id that depends on the text alone: the start of its sha256."""
    return hashlib.sha256(_bytes(text)).hexdigest()[:20]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
