"""SQLAlchemy models of the tables, for people who query pgembed from their own application.

The SQL files are the source; a test holds these against the migrated schema (Alembic's autogenerate finds nothing).
"""

from pgembed.db.models.base import Base
from pgembed.db.models.corpus import ChunkLocation, CodeChunk, RejectedItem, Source, SourceFile, Token
from pgembed.db.models.encoders import Encoder, TrainingEvaluation, TrainingMetric, TrainingRun
from pgembed.db.models.pairs import (
    CandidatePair,
    CrowdedBucket,
    JaccardRank,
    JaccardSet,
    JaccardSignature,
    PairRun,
    PairSlice,
    QueuedPair,
)
from pgembed.db.models.search import LexicalDocument, LexicalStatistics, SearchSetting
from pgembed.db.models.triplets import (
    ChunkBlock,
    ChunkSplit,
    MiningExclusion,
    MiningSetting,
    TripletBlock,
    TripletCandidate,
    TripletState,
)
from pgembed.db.models.vectors import ActiveGeneration, CodeEmbedding, Evaluation, Generation

__all__ = [
    "ActiveGeneration",
    "Base",
    "CandidatePair",
    "ChunkBlock",
    "ChunkLocation",
    "ChunkSplit",
    "CodeChunk",
    "CodeEmbedding",
    "CrowdedBucket",
    "Encoder",
    "Evaluation",
    "Generation",
    "JaccardRank",
    "JaccardSet",
    "JaccardSignature",
    "LexicalDocument",
    "LexicalStatistics",
    "MiningExclusion",
    "MiningSetting",
    "PairRun",
    "PairSlice",
    "QueuedPair",
    "RejectedItem",
    "SearchSetting",
    "Source",
    "SourceFile",
    "Token",
    "TrainingEvaluation",
    "TrainingMetric",
    "TrainingRun",
    "TripletBlock",
    "TripletCandidate",
    "TripletState",
]
