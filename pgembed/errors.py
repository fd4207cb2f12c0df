"""The one tree of errors. A message says what is wrong, with the value, and what to do next.

    PgembedError
    ├── ConfigurationError      a setting, an argument or an environment variable that cannot be used
    │   ├── MissingExtra        an optional dependency that is not installed
    │   └── PluginError         what another distribution registers and cannot be used
    ├── DatabaseError           the server: unreachable, too old, without pgvector, without the privilege
    │   └── SchemaError         the schema: absent, behind, or newer than this package
    ├── CorpusError             files that cannot be ingested at all (single files are rejected, not raised)
    ├── MiningError             pairs and triplets
    ├── EncoderError            an encoder's files, settings or output
    ├── TrainingError           fine-tuning and checkpoints
    ├── ExportError             an ONNX graph that does not equal the model it came from
    ├── GenerationError         reindex, generations and their indexes
    ├── SearchError             a search that cannot be answered
    │   └── UnknownFilter       a language, kind or source that does not exist
    └── EvaluationError         data sets and measurements

Only `cli` turns these into exit codes.
"""

from pgembed_code.installation import install_line


class PgembedError(Exception):
    """Something pgembed cannot do. Takes its message from the caller, else from the subclass's docstring."""

    def __init__(self, message: str | None = None, *, remedy: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.remedy = remedy
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message if self.remedy is None else f"{self.message}\n  {self.remedy}"


class ConfigurationError(PgembedError):
    """A setting cannot be used."""


class MissingExtra(ConfigurationError):
    """An optional dependency is not installed; `advice` stands before the line that installs it."""

    def __init__(self, extra: str, needed_for: str, cause: str, *, advice: str = "Install it") -> None:
        self.cause = cause
        super().__init__(
            f"{needed_for} needs the extra '{extra}' ({cause}).",
            remedy=f"{advice}: {install_line(extra)}",
        )


class PluginError(ConfigurationError):
    """What another distribution registers cannot be used."""


class DatabaseError(PgembedError):
    """The database cannot be used."""


class SchemaError(DatabaseError):
    """The database's schema does not fit this package."""


class CorpusError(PgembedError):
    """The code cannot be ingested."""


class MiningError(PgembedError):
    """Pairs or triplets cannot be mined."""


class EncoderError(PgembedError):
    """The encoder cannot be used."""


class TrainingError(PgembedError):
    """The model cannot be trained."""


class ExportError(PgembedError):
    """The model cannot be exported."""


class GenerationError(PgembedError):
    """The generation cannot be built or changed."""


class SearchError(PgembedError):
    """The search cannot be answered."""


class UnknownFilter(SearchError):
    """The value of `filter` (language, kind or source) does not exist; the remedy lists those that do."""

    def __init__(self, filter: str, message: str, *, remedy: str | None) -> None:
        self.filter = filter
        super().__init__(message, remedy=remedy)


class EvaluationError(PgembedError):
    """The evaluation cannot be run."""
