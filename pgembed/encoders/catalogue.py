"""Every encoder that has a name here: the presets that pgembed brings, and those that other distributions register.

A plugin's code runs only when a name is looked up or all are listed: an exported encoder needs none of it. So `search`
and `reindex` work whatever is broken in here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pgembed.encoders.presets import PRESETS
from pgembed.encoders.spec import EncoderSpec
from pgembed.errors import EncoderError, PluginError
from pgembed.plugins import Plugin, collision, plugins

GROUP = "pgembed.encoders"


@dataclass(frozen=True)
class Origin:
    """Who brings an encoder."""

    kind: Literal["built-in", "plugin"]
    distribution: str = ""
    version: str = ""
    entry: str = ""
    """Name of the entry point."""

    def __str__(self) -> str:
        return "built-in" if self.kind == "built-in" else f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True)
class NamedEncoder:
    """An encoder and where its description comes from."""

    spec: EncoderSpec
    origin: Origin


@dataclass(frozen=True)
class BrokenEntry:
    """An entry that gives no encoder, or one whose name is taken."""

    name: str
    """Of the encoder where it is known, else of the entry."""
    origin: Origin
    error: PluginError
    is_claimed_twice: bool = False
    """Whether it is its name alone that cannot be used."""


@dataclass(frozen=True)
class Catalogue:
    """All that was found."""

    encoders: list[NamedEncoder] = field(default_factory=list)
    """Built-in ones first. Of two with one name neither is here, unless one is built in: that one is."""
    broken: list[BrokenEntry] = field(default_factory=list)


def all_encoders() -> Catalogue:
    """Load every plugin and return what there is; what is broken is listed and not raised."""
    found = Catalogue([NamedEncoder(spec, Origin("built-in")) for spec in PRESETS.values()])
    by_name = {known.spec.name: known for known in found.encoders}
    for plugin in plugins(GROUP):
        origin = Origin("plugin", plugin.distribution, plugin.version, plugin.name)
        try:
            specs = _specs(plugin)
        except PluginError as error:
            found.broken.append(BrokenEntry(plugin.name, origin, error))
            continue
        for spec in specs:
            known = NamedEncoder(spec, origin)
            other = by_name.setdefault(spec.name, known)
            if other is not known:
                clash = collision(
                    f"The encoder name {spec.name!r}",
                    _claimant(other.origin),
                    _claimant(origin),
                    second_distribution=plugin.distribution,
                )
                found.broken.append(BrokenEntry(spec.name, origin, clash, is_claimed_twice=True))
                if other in found.encoders and other.origin.kind == "plugin":  # which of the two is meant, nobody knows
                    found.encoders.remove(other)
                    found.broken.append(BrokenEntry(spec.name, other.origin, clash, is_claimed_twice=True))
            else:
                found.encoders.append(known)
    return found


def find_encoder(name: str) -> NamedEncoder | None:
    """Return the encoder called `name`; None where nothing is called so.

    A broken plugin stands in the way of its own names only.

    Raises:
        PluginError: two distributions claim the name, or only a broken entry has it.
    """
    found = all_encoders()
    for entry in found.broken:
        if entry.name == name and entry.is_claimed_twice:
            raise entry.error
    for known in found.encoders:
        if known.spec.name == name:
            return known
    for entry in found.broken:
        if entry.name == name:
            raise entry.error
    return None


def no_such_encoder(name: str) -> EncoderError:
    """Return the error for a name that is neither known nor a folder."""
    found = all_encoders()
    names = ", ".join(known.spec.name for known in found.encoders)
    broken = ", ".join(dict.fromkeys(str(entry.origin) for entry in found.broken))
    return EncoderError(
        f"{name!r} is neither an encoder known by name ({names}) nor a folder.",
        remedy="See `pgembed encoders`." + (f" What these register cannot be used: {broken}." if broken else ""),
    )


def _claimant(origin: Origin) -> str:
    if origin.kind == "built-in":
        return "pgembed itself (distribution pgembed-code)"
    return f"{origin} (entry {origin.entry!r})"


def _specs(plugin: Plugin) -> list[EncoderSpec]:
    """Return what an entry gives: a spec, several as a list or by name, or a callable that returns one of these."""
    given = plugin.load()
    try:
        given = given() if callable(given) else given
        if isinstance(given, EncoderSpec):
            return [given]
        named = dict(given) if isinstance(given, Mapping) else {}
        specs = list(given.values() if isinstance(given, Mapping) else given)
    except (Exception, SystemExit) as error:  # whatever a stranger's code raises
        raise plugin.broken(error) from error
    if not specs or not all(isinstance(spec, EncoderSpec) for spec in specs):
        raise plugin.broken(f"it gives {given!r:.100}, not an EncoderSpec or several.")
    for name, spec in named.items():
        if name != spec.name:
            raise plugin.broken(f"it gives {name!r} an encoder that calls itself {spec.name!r}.")
    return specs
