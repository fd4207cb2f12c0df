"""The five commands on the data's path, and what each must have come to, whatever happened on the way."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg

if TYPE_CHECKING:
    from faults.world import World

Outcome = dict[str, Any]
"""By name: rows, hashes, or an array, which may differ in the last digits."""

_CHUNKS = """
    SELECT s.name, l.path, l.start_line, l.end_line, l.symbol, encode(c.sha256, 'hex'), c.docstring,
           ARRAY(SELECT t.token FROM pgembed.tokens t WHERE t.id = ANY (c.token_ids) ORDER BY 1),
           ARRAY(SELECT t.token FROM pgembed.tokens t WHERE t.id = ANY (d.token_ids) ORDER BY 1)
      FROM pgembed.chunk_locations l
      JOIN pgembed.sources s ON s.id = l.source_id
      JOIN pgembed.code_chunks c ON c.id = l.chunk_id
      LEFT JOIN pgembed.lexical_documents d ON d.chunk_id = c.id
     ORDER BY 1, 2, 3, 6
"""
_PAIRS = """
    SELECT encode(least(a.sha256, b.sha256), 'hex'), encode(greatest(a.sha256, b.sha256), 'hex'), p.intersection,
           p.jaccard
      FROM pgembed.candidate_pairs p
      JOIN pgembed.code_chunks a ON a.id = p.chunk_a
      JOIN pgembed.code_chunks b ON b.id = p.chunk_b
     ORDER BY 1, 2
"""
_TRIPLETS = """
    SELECT ordinal, kind, split, anchor, positive, negative, positive_jaccard, negative_jaccard, rule
      FROM pgembed.triplets ORDER BY ordinal
"""
_STEPS = "SELECT step, loss, gradient_norm, learning_rate FROM pgembed.training_metrics WHERE run_id = %s ORDER BY step"
_VECTORS = """
    SELECT encode(c.sha256, 'hex'), v.embedding::real[]
      FROM pgembed.code_embeddings v JOIN pgembed.code_chunks c ON c.id = v.chunk_id
     WHERE v.generation_id = (SELECT generation_id FROM pgembed.active_generation) ORDER BY 1
"""


@dataclass(frozen=True)
class Station:
    """A command, as arguments, and what it makes."""

    name: str
    command: Callable[["World"], list[str]]
    outcome: Callable[[psycopg.Connection, Path], Outcome]


def _ingested(conn: psycopg.Connection, _: Path) -> Outcome:
    return {"chunks": conn.execute(_CHUNKS).fetchall()}


def _paired(conn: psycopg.Connection, _: Path) -> Outcome:
    return {"pairs": conn.execute(_PAIRS).fetchall(), "triplets": conn.execute(_TRIPLETS).fetchall()}


def _trained(conn: psycopg.Connection, _: Path) -> Outcome:
    """Of every run that finished: of two at once, each may have made one of its own."""
    runs = conn.execute(
        "SELECT id, checkpoint_path FROM pgembed.training_runs WHERE state = 'finished' ORDER BY id"
    ).fetchall()
    weights = {_sha256(path) for _, folder in runs for path in Path(folder).glob("towers/*/model.safetensors")}
    steps = {tuple(conn.execute(_STEPS, (run_id,)).fetchall()) for run_id, _ in runs}
    return {"weights": sorted(weights), "steps": sorted(steps)}


def _exported(_: psycopg.Connection, home: Path) -> Outcome:
    """The manifest says each file's hash, and doctor held the files to it."""
    return {
        path.parent.name: json.loads(path.read_text())["files"] for path in (home / "models").glob("*/encoder.json")
    }


def _embedded(conn: psycopg.Connection, _: Path) -> Outcome:
    rows = conn.execute(_VECTORS).fetchall()
    # not their ids: a transaction that was rolled back has used one up
    generations = conn.execute("SELECT state, row_count, lists FROM pgembed.generations ORDER BY id").fetchall()
    return {"generations": generations, "of": [row[0] for row in rows], "vectors": np.array([row[1] for row in rows])}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _train(world: "World") -> list[str]:
    steps = 8 if world.is_small else 24
    return [
        "train", "--base", str(world.model), "--steps", str(steps), "--batch", "8", "--checkpoint-every", "3",
        "--evaluate-every", str(steps // 2), "--evaluation-rows", "16", "--interpolate", "1.0", "--precision", "fp32",
        "--max-tokens", "48", "--learning-rate", "1e-3",
    ]  # fmt: skip


STATIONS = (
    Station("ingest", lambda world: ["ingest", *world.sources], _ingested),
    Station("pairs", lambda _: ["pairs", "--min-jaccard", "0.3"], _paired),
    Station("train", _train, _trained),
    Station("export", lambda _: ["export"], _exported),
    Station("reindex", lambda _: ["reindex", "--batch", "16", "--activate"], _embedded),
)
BY_NAME = {station.name: station for station in STATIONS}


def differences(found: Outcome, wanted: Outcome) -> list[str]:
    """Return in words what of an outcome is not as it is to be."""
    told = [f"there is {name}" for name in found.keys() - wanted.keys()]
    for name, value in wanted.items():
        if isinstance(value, np.ndarray):
            # another batch beside a text moves the last digits of its vector
            other = found.get(name)
            if other is None or other.shape != value.shape or np.abs(other - value).max(initial=0.0) > 1e-5:
                told.append(f"the {name} differ")
        elif found.get(name) != value:
            told.append(f"the {name} differ")
    return told
