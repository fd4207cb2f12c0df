"""Who cuts a file: third parties' chunkers first, then tree-sitter for the languages it knows, then windows of lines.

A third party registers an object (or a class without arguments) under the entry-point group `pgembed.chunkers`:

    [project.entry-points."pgembed.chunkers"]
    cobol = "my_package:CobolChunker"

docs/plugins.md has a worked example.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import PurePosixPath
from typing import Protocol

from pgembed.corpus.chunk import Chunked
from pgembed.corpus.definitions import chunk_definitions
from pgembed.corpus.file_types import language_of
from pgembed.corpus.languages import BY_NAME
from pgembed.corpus.windows import windows
from pgembed.plugins import Plugin, collision, plugins

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

    One that is broken is an error and not passed over: its files would be cut in another way, and nobody would notice.

    Raises:
        PluginError: one cannot be loaded, or two want the same ending or name.
    """
    claims: dict[str, str] = {f"The name {builtin.name!r}": "pgembed itself" for builtin in (_DEFINITIONS, _WINDOWS)}
    found: dict[str, Chunker] = {}
    for plugin in plugins(GROUP):
        chunker = _load(plugin)
        claimant = f"{plugin.origin} (entry {plugin.name!r})"
        # the name as well: it is stored with each file, and tells that another chunker cuts the file now
        for claim in (f"The name {chunker.name!r}", *(f"The file ending {ending}" for ending in chunker.extensions)):
            if claim in claims:
                raise collision(claim, claims[claim], claimant, second_distribution=plugin.distribution)
            claims[claim] = claimant
        found.update(dict.fromkeys(chunker.extensions, chunker))
    return found


def _load(plugin: Plugin) -> Chunker:
    loaded = plugin.load()
    try:
        chunker: Chunker = loaded() if isinstance(loaded, type) else loaded
        name, extensions, chunk = chunker.name, dict(chunker.extensions), chunker.chunk
    except Exception as error:  # whatever a stranger's code raises
        raise plugin.broken(error) from error
    if not (isinstance(name, str) and name and callable(chunk)):
        raise plugin.broken(f"its name is {name!r} and its chunk {chunk!r}; needed are a string and a method.")
    for extension, language in extensions.items():
        # files are asked for by their last suffix in lower case: any other spelling would never be found
        if (
            not isinstance(extension, str)
            or PurePosixPath(f"x{extension}".lower()).suffix != extension
            or not extension
        ):
            raise plugin.broken(f"{extension!r} is no file ending in lower case such as '.cob'.")
        if not isinstance(language, str) or not language:
            raise plugin.broken(f"the language of {extension!r} is {language!r}, not a name.")
    return chunker


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
