"""Who cuts a file: third parties' chunkers first, then tree-sitter for the languages it knows, then windows of lines.

A third party registers an object (or a class without arguments) under the entry-point group `pgembed.chunkers`:

    [project.entry-points."pgembed.chunkers"]
    cobol = "my_package:CobolChunker"
"""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import PurePosixPath
from typing import Protocol

from pgembed.corpus.chunk import Chunked
from pgembed.corpus.definitions import chunk_definitions
from pgembed.corpus.file_types import language_of
from pgembed.corpus.languages import BY_NAME
from pgembed.corpus.windows import windows
from pgembed.errors import CorpusError

GROUP = "pgembed.chunkers"


class Chunker(Protocol):
    """Cuts the text of one file into chunks. Must depend on its arguments alone: processes run it side by side."""

    name: str
    """Name and version, such as `cobol/1`. It is stored with each file; under another name a file is read again."""
    extensions: Mapping[str, str]
    """The file endings it takes (lower case, with their dot), and the language of each."""

    def chunk(self, text: str, language: str) -> Chunked:
        """Return the chunks of `text`, in the order in which they stand; lines end with \\n alone."""


class _Definitions:
    name = "definitions/2"
    extensions: Mapping[str, str] = {}

    def chunk(self, text: str, language: str) -> Chunked:
        return chunk_definitions(text, BY_NAME[language])


class _Windows:
    name = "windows/2"
    extensions: Mapping[str, str] = {}

    def chunk(self, text: str, language: str) -> Chunked:
        return Chunked(list(windows(text, language)))


_DEFINITIONS: Chunker = _Definitions()
_WINDOWS: Chunker = _Windows()


@cache
def third_party() -> Mapping[str, Chunker]:
    """Return the registered chunkers by file ending.

    Raises:
        CorpusError: one cannot be loaded, or two want the same ending.
    """
    found: dict[str, Chunker] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            loaded = entry.load()
            chunker: Chunker = loaded() if isinstance(loaded, type) else loaded
            extensions = [extension.lower() for extension in chunker.extensions]
        except Exception as error:  # whatever a stranger's code raises
            raise CorpusError(
                f"The chunker {entry.name!r} ({entry.value}) cannot be loaded: {error}",
                remedy="Repair or uninstall the package that registers it.",
            ) from error
        for extension in extensions:
            if extension in found:
                raise CorpusError(
                    f"Two chunkers want *{extension}: {found[extension].name!r} and {chunker.name!r}.",
                    remedy="Uninstall one of the packages that register them.",
                )
            found[extension] = chunker
    return found


def choose(path: str, text: str) -> tuple[Chunker, str]:
    """Return the chunker for a file, and the file's language."""
    registered = _registered(path)
    if registered is not None:
        return registered
    language = language_of(path, text)
    return (_DEFINITIONS if language in BY_NAME else _WINDOWS), language


def is_current(path: str, language: str | None, name: str) -> bool:
    """Whether the chunker called `name` is still the one for a file that it read as `language`."""
    registered = _registered(path)
    if registered is not None:
        return registered[0].name == name
    return name == (_DEFINITIONS if language in BY_NAME else _WINDOWS).name


def _registered(path: str) -> tuple[Chunker, str] | None:
    extension = PurePosixPath(path.lower()).suffix
    chunker = third_party().get(extension)
    return (chunker, chunker.extensions[extension]) if chunker is not None else None
