"""What other distributions register with pgembed by entry points, and who registered it.

    group              an entry is                                                    used by
    pgembed.encoders   an EncoderSpec, several, or a callable that returns them        encoders.catalogue
    pgembed.chunkers   a chunker, or a class of them without arguments                 corpus.chunkers

Listing entries imports nothing of a stranger's; only `load` runs its code. See docs/plugins.md.
"""

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pgembed.errors import PluginError
from pgembed_code.installation import pip


@dataclass(frozen=True)
class Plugin:
    """One entry point: what it is called, where its object is, and the distribution that registered it."""

    group: str
    name: str
    value: str
    """Where the object is, as `module:attribute`."""
    distribution: str
    version: str
    entry: EntryPoint

    @property
    def origin(self) -> str:
        """Distribution and version, as a person reads them."""
        return f"{self.distribution} {self.version}".strip()

    def load(self) -> Any:
        """Import and return the object.

        Raises:
            PluginError: the import fails, whatever the reason.
        """
        try:
            return self.entry.load()
        except (Exception, SystemExit) as error:  # whatever a stranger's code raises; even its exit is not ours
            raise self.broken(error) from error

    def broken(self, cause: BaseException | str) -> PluginError:
        """Return the error that says whose entry cannot be used, why, and what to do."""
        reason = cause if isinstance(cause, str) else f"{type(cause).__name__}: {cause}"
        return PluginError(
            f"The entry {self.name!r} ({self.value}) of {self.group}, registered by the distribution "
            f"{self.origin}, cannot be used: {reason}",
            remedy=f"Repair or upgrade it, or take it away: {pip('uninstall')} {self.distribution}",
        )


def plugins(group: str) -> list[Plugin]:
    """Return what is registered under `group`, by distribution and entry; nothing is imported."""
    found = [
        Plugin(
            group=group,
            name=entry.name,
            value=entry.value,
            distribution=entry.dist.name if entry.dist else "unknown",
            version=entry.dist.version if entry.dist else "",
            entry=entry,
        )
        for entry in entry_points(group=group)
    ]
    return sorted(found, key=lambda plugin: (plugin.distribution, plugin.name))


def collision(what: str, first: str, second: str, *, second_distribution: str) -> PluginError:
    """Return the error for two that want one thing; `first` and `second` say who, distribution included."""
    return PluginError(
        f"{what} is claimed twice: by {first} and by {second}.",
        remedy=f"Keep one of them: {pip('uninstall')} {second_distribution}, or ask its author for another name.",
    )
