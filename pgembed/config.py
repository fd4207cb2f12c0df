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

from pgembed.errors import ConfigurationError

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
    # As root the embedded server runs as a system user of its own, which must be able to pass every folder above its
    # data. It can pass /var/lib; root's home folder it cannot.
    if sys.platform != "win32" and os.geteuid() == 0:
        return Path("/var/lib/pgembed")
    return Path(platformdirs.user_data_dir("pgembed", appauthor=False))


def _home() -> Path:
    given = os.environ.get("PGEMBED_HOME")
    try:
        if given:
            return Path(given).expanduser().absolute()
        home, why = _default_home(), "this user has no home folder"
    except RuntimeError as error:
        home, why = Path(), str(error)
    if not home.is_absolute():  # older releases of platformdirs leave a ~ that stands for nothing
        raise ConfigurationError(
            f"There is no folder for pgembed's own files: {why}.",
            remedy="Set PGEMBED_HOME to the whole path of a folder that this user can write to.",
        )
    return home


def settings() -> Settings:
    """Read the environment as it is now.

    Raises:
        ConfigurationError: there is no folder for pgembed's own files.
    """
    return Settings(home=_home(), dsn=os.environ.get("PGEMBED_DSN") or None)


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
