"""Which code trains: what a resumed run must have in common with the one that was interrupted, to end with its bits."""

import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from pgembed import __version__

_ROOT = Path(__file__).resolve().parents[2]


def code_identity() -> dict[str, str | None]:
    """Return the versions of pgembed, torch and transformers, and pgembed's git revision where it is a checkout."""
    return {
        "pgembed": __version__,
        "revision": git_revision(_ROOT),
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }


def git_revision(root: Path) -> str | None:
    """Return the commit that the checkout `root` stands at; None where it is none, or git cannot tell."""
    if not (root / ".git").exists():
        return None
    try:
        told = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told.stdout.strip() or None if told.returncode == 0 else None
