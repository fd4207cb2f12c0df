"""The one place that reads the environment.

PGEMBED_DSN    connection string of the database; without it the embedded server is used
PGEMBED_HOME   folder for the embedded server, models and checkpoints
RANK, LOCAL_RANK, WORLD_SIZE   set by torchrun: which of how many processes this is
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import platformdirs

_TORCHRUN = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}


@dataclass(frozen=True)
class Settings:
    """Where things are kept on this machine."""

    home: Path
    dsn: str | None

    @property
    def postgres_dir(self) -> Path:
        """Data folder of the embedded server."""
        return self.home / "postgres"

    @property
    def models_dir(self) -> Path:
        """Exported ONNX artefacts, a folder each."""
        return self.home / "models"

    @property
    def checkpoints_dir(self) -> Path:
        """Training checkpoints, a folder a run."""
        return self.home / "checkpoints"


def _default_home() -> Path:
    # As root the embedded server runs as a system user of its own, which must be able to reach its data: it
    # opens every parent folder to all users. Under /var/lib nothing has to be opened that is not open already.
    if sys.platform != "win32" and os.geteuid() == 0:
        return Path("/var/lib/pgembed")
    return Path(platformdirs.user_data_dir("pgembed", appauthor=False))


def settings() -> Settings:
    """Read the environment as it is now."""
    home = os.environ.get("PGEMBED_HOME")
    return Settings(
        home=Path(home).expanduser().absolute() if home else _default_home(),
        dsn=os.environ.get("PGEMBED_DSN") or None,
    )


@dataclass(frozen=True)
class Launch:
    """Which of how many processes this is."""

    rank: int = 0
    local_rank: int = 0
    """Among those of this machine."""
    size: int = 1


def launch() -> Launch:
    """Read what torchrun set; without it, this process is the only one."""
    rank, local_rank, size = (int(os.environ.get(name, default)) for name, default in _TORCHRUN.items())
    return Launch(rank, local_rank, size)
