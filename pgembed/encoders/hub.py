"""Weights from the Hugging Face hub: one commit, data files only. Nothing of a repository's code is fetched."""

import re
from pathlib import Path

from pgembed.errors import EncoderError, MissingExtra

# Configuration, tokenizer, weights, and the same in the folders of pooling modules and task adapters. No *.py and no
# pickled weights (*.bin, *.pt): both would be code of a stranger.
PATTERNS = ("*.json", "*.safetensors", "vocab.txt", "*/config.json", "*/adapter_config.json", "*/*.safetensors")
# snapshot_download's `*` matches a slash too: what these would bring along is left out.
_IGNORED = ("onnx/*", "*.py", "*.bin")


def parse_place(place: str) -> tuple[str, str]:
    """Return `(repository, revision)` of `owner/name@<40 hexadecimal digits>`.

    Raises:
        EncoderError: the revision is missing or a name that can move, such as a branch.
    """
    repository, _, revision = place.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise EncoderError(f"hub:{place} does not name a repository.", remedy="Write hub:owner/name@<revision>.")
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise EncoderError(
            f"hub:{place} is not pinned: {revision or 'nothing'!r} is not a commit.",
            remedy=f"Write hub:{repository}@<40 hexadecimal digits>, from "
            f"https://huggingface.co/{repository}/commits/main. A branch may hold other weights tomorrow.",
        )
    return repository, revision


def hub_folder(place: str, *, download: bool) -> Path:
    """Return the folder that holds the snapshot of `place`; without `download` only what is there already.

    Raises:
        EncoderError: it is not pinned, not there, or cannot be fetched.
        MissingExtra: huggingface_hub is not installed.
    """
    repository, revision = parse_place(place)
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise MissingExtra("train", "Fetching weights", str(error)) from error
    try:
        found = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(PATTERNS),
            ignore_patterns=list(_IGNORED),
            local_files_only=not download,
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        by_hand = (
            f"hf download {repository} --revision {revision} --exclude '*.py' --exclude '*.bin' --exclude 'onnx/*' "
            "--local-dir FOLDER. Copy FOLDER here, and name it in an encoder file: see `pgembed export --help`."
        )
        where = f"{repository} at {revision[:12]}"
        if not download:
            raise EncoderError(
                f"{where} is not on this machine.",
                remedy=f"`pgembed export` and `pgembed train` fetch it; or, where there is a network: {by_hand}",
            ) from error
        raise EncoderError(
            f"{where} cannot be fetched: {str(error).splitlines()[0]}", remedy=f"Where there is a network: {by_hand}"
        ) from error
    return Path(found)
