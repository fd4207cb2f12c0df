"""What a file is, by its name and, where the name does not say, by its first lines."""

import re
from pathlib import PurePosixPath

from pgembed.corpus.languages import LANGUAGES

UNKNOWN = "text"
"""The language of a text file whose name says nothing."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Text that people search, without a grammar here: cut into windows of lines, named by its ending.
_PLAIN = {
    ".sql": "sql", ".sh": "shell", ".bash": "shell", ".zsh": "shell", ".fish": "shell", ".ps1": "powershell",
    ".kt": "kotlin", ".kts": "kotlin", ".swift": "swift", ".scala": "scala", ".lua": "lua", ".pl": "perl",
    ".pm": "perl", ".r": "r", ".jl": "julia", ".hs": "haskell", ".ml": "ocaml", ".mli": "ocaml", ".fs": "fsharp",
    ".ex": "elixir", ".exs": "elixir", ".erl": "erlang", ".clj": "clojure", ".dart": "dart", ".zig": "zig",
    ".nim": "nim", ".vue": "vue", ".svelte": "svelte", ".html": "html", ".css": "css", ".scss": "scss",
    ".md": "markdown", ".rst": "restructuredtext", ".txt": "text", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml",
    ".cfg": "ini", ".ini": "ini", ".proto": "protobuf", ".graphql": "graphql", ".tf": "terraform", ".cmake": "cmake",
    ".mk": "make", ".bat": "batch", ".f90": "fortran", ".asm": "assembly", ".s": "assembly", ".m": "objective-c",
    ".mm": "objective-c", ".el": "lisp", ".lisp": "lisp", ".vim": "vim", ".tcl": "tcl", ".pyx": "cython",
    ".pxd": "cython", ".groovy": "groovy", ".gradle": "groovy", ".glsl": "glsl", ".cshtml": "html",
}  # fmt: skip
_BY_NAME = {
    "makefile": "make", "gnumakefile": "make", "dockerfile": "dockerfile", "rakefile": "ruby", "gemfile": "ruby",
    "cmakelists.txt": "cmake", "jenkinsfile": "groovy", "justfile": "make",
}  # fmt: skip
_BY_EXTENSION = {
    **_PLAIN,
    **{extension: language.name for language in LANGUAGES for extension in language.extensions},
}

_DATA = _words(
    ".json .jsonl .ndjson .geojson .ipynb .csv .tsv .xml .svg .lock .po .pot .map .snap .log .sum .pem .crt .key .diff "
    ".patch .plist .xlf .resx .eps .ps .pdb .srt .bib .tex .dat .out .asc .sig"
)
_BINARY = _words(
    ".png .jpg .jpeg .gif .bmp .ico .icns .webp .tif .tiff .psd .pdf .zip .gz .bz2 .xz .zst .7z .rar .tar .tgz .jar "
    ".war .whl .egg .so .a .o .obj .lib .dll .dylib .exe .bin .class .pyc .pyo .pyd .wasm .ttf .otf .woff .woff2 .eot "
    ".mp3 .mp4 .wav .ogg .flac .avi .mov .mkv .webm .db .sqlite .sqlite3 .npy .npz .pkl .pickle .parquet .onnx .pt "
    ".safetensors .h5 .doc .docx .xls .xlsx .ppt .pptx .odt .mo .gresource .dmg .iso .deb .rpm"
)

_SHEBANG = re.compile(r"#!.*?\b(python|node|deno|bun|ruby|php|perl|bash|zsh|ksh|dash|sh|lua|Rscript|tclsh)[\d.]*\b")
_INTERPRETERS = {"node": "javascript", "deno": "typescript", "bun": "typescript", "perl": "perl", "lua": "lua",
                 "Rscript": "r", "tclsh": "tcl", "python": "python", "ruby": "ruby", "php": "php"}  # fmt: skip
_CPP_HEADER = re.compile(
    r"^\s*(?:class\s+\w+[^;]*$|namespace\b|template\s*<|using\s+\w|public:|private:)", re.MULTILINE
)


def language_by_name(path: str) -> str | None:
    """Return the language that a file's name tells, or None where it tells nothing."""
    name = PurePosixPath(path).name.lower()
    return _BY_NAME.get(name) or _BY_EXTENSION.get(PurePosixPath(name).suffix)


def language_of(path: str, text: str) -> str:
    """Return the language of a file: a header of C may be one of C++, a script says at its head who reads it."""
    language = language_by_name(path)
    if language == "c" and path.lower().endswith(".h") and _CPP_HEADER.search(text):
        return "cpp"
    if language is None:
        shebang = _SHEBANG.match(text)
        return _INTERPRETERS.get(shebang[1], "shell") if shebang else UNKNOWN
    return language


def is_data(path: str) -> bool:
    """Whether the name says: text, but data and no code."""
    return PurePosixPath(path.lower()).suffix in _DATA


def is_binary(path: str) -> bool:
    """Whether the name says: no text at all."""
    return PurePosixPath(path.lower()).suffix in _BINARY
