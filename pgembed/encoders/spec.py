"""What an encoder is: one or two towers, each filling a slot of the 2,560 dimensions. Data, no code."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from pgembed.errors import EncoderError

DIMENSIONS = 2560
"""Width of every vector in the database: 1536 (Qodo-Embed-1-1.5B) + 1024 (Jina v3)."""

Pooling = Literal["mean", "last", "cls"]
Role = Literal["query", "passage"]
ROLES: tuple[Role, ...] = get_args(Role)
"""A role's place here is what an exported graph takes as its number."""


@dataclass(frozen=True)
class TowerSpec:
    """One transformer with its pooling, and the slot that its normalised output fills."""

    name: str
    weights: str
    """Where they are: `package:<import name>/<folder>`, `folder:<path>`, or `hub:<repository>@<revision>`."""
    dimensions: int
    """Width of the tower's own output; the rest of its slot is zeros. Less than the model's own width keeps the first
    ones (Matryoshka, Kusupati et al., NeurIPS 2022), at widths that the model was trained for."""
    slot: int
    """Width that it takes of the 2,560."""
    pooling: Pooling
    causal: bool
    """Whether a token attends only to those before it. Never guessed: a wrong value gives plausible, bad vectors."""
    max_tokens: int
    """Longer texts are cut, special tokens included."""
    weight: float = 1.0
    """Share of the joined vector: the cosine of a pair of towers is the mean of theirs, weighted by weight²."""
    query_prompt: str = ""
    passage_prompt: str = ""
    query_adapter: str = ""
    """Task adapter (LoRA) that a query goes through, by the name that the weights give it; empty: none."""
    passage_adapter: str = ""
    end_of_text: str = ""
    """Token that ends every text where tokenizer.json does not add it by itself, e.g. `<|endoftext|>`."""
    matryoshka_dimensions: tuple[int, ...] = ()
    """Widths that the output may be cut to, where the model's configuration does not list them."""
    licence: str = "unknown"
    licence_note: str = ""
    """What a user must know before use, e.g. `no commercial use`."""
    sha256: dict[str, str] = field(default_factory=dict, hash=False)
    """File name to hash, for files that must be these and no others."""

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise EncoderError(
                f"Tower {self.name!r}: pooling {self.pooling!r} is none of {', '.join(get_args(Pooling))}."
            )
        if not 0 < self.dimensions <= self.slot <= DIMENSIONS:
            raise EncoderError(
                f"Tower {self.name!r}: {self.dimensions} dimensions do not fit a slot of {self.slot} (of {DIMENSIONS})."
            )
        if not (self.weight > 0 and self.max_tokens > 2):
            raise EncoderError(f"Tower {self.name!r}: weight and max_tokens must be positive.")
        # JSON and TOML have no tuples
        object.__setattr__(self, "matryoshka_dimensions", tuple(self.matryoshka_dimensions))

    def prompt(self, role: Role) -> str:
        """Return what goes before a text in this role."""
        return self.query_prompt if role == "query" else self.passage_prompt

    def adapter(self, role: Role) -> str:
        """Return the task adapter of this role; empty where there is none."""
        return self.query_adapter if role == "query" else self.passage_adapter


@dataclass(frozen=True)
class EncoderSpec:
    """One or more towers whose slots fill the 2,560 dimensions in order."""

    name: str
    towers: tuple[TowerSpec, ...]

    def __post_init__(self) -> None:
        if not self.towers:
            raise EncoderError(f"Encoder {self.name!r} has no tower.")
        filled = sum(tower.slot for tower in self.towers)
        if filled != DIMENSIONS:
            raise EncoderError(f"Encoder {self.name!r}: its slots fill {filled} dimensions, not {DIMENSIONS}.")
        if len({tower.name for tower in self.towers}) != len(self.towers):
            raise EncoderError(f"Encoder {self.name!r}: two towers have the same name.")

    @property
    def dimensions(self) -> int:
        """Width of the joined vector."""
        return DIMENSIONS

    @property
    def takes_role(self) -> bool:
        """Whether the role chooses weights, so that a graph needs to be told it with every text."""
        return any(tower.adapter(role) for tower in self.towers for role in ROLES)

    @property
    def licence(self) -> str:
        """Licences of all towers."""
        return "; ".join(dict.fromkeys(tower.licence for tower in self.towers))

    def to_json(self) -> dict[str, Any]:
        """Return plain values, of which `from_json` makes the same encoder."""
        towers = [dataclasses.asdict(tower) for tower in self.towers]
        for tower in towers:
            tower["matryoshka_dimensions"] = list(tower["matryoshka_dimensions"])
        return {"name": self.name, "towers": towers}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "EncoderSpec":
        """Read what `to_json` wrote.

        Raises:
            EncoderError: a field is missing, unknown, or holds what it cannot.
        """
        try:
            towers = tuple(TowerSpec(**tower) for tower in values["towers"])
            return cls(name=values["name"], towers=towers)
        except (KeyError, TypeError) as error:
            raise EncoderError(f"This is no description of an encoder: {error}") from error
