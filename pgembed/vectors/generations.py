"""Generations: one complete set of vectors each, and a pointer to the one that answers searches.

    filling ─► indexing ─► ready ─► active ◄─► retired
       └───────────┴─► failed

Activating and rolling back update the pointer's one row; vectors are never touched. No answer mixes two models.

Reads `code_chunks`; writes `generations`, `active_generation`; drops tables of vectors.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from pgembed.db.sql import query
from pgembed.encoders.artefact import load_manifest
from pgembed.encoders.windows import Long
from pgembed.errors import EncoderError, GenerationError
from pgembed.vectors import table
from pgembed.vectors.index import index_is_valid, index_name
from pgembed.vectors.lock import encoder_lock

Connection = psycopg.Connection[Any]

# state → the states it may be reached from
_ALLOWED = {
    "indexing": ["filling"],
    "ready": ["indexing"],
    "active": ["ready", "retired"],
    "retired": ["active"],
    "failed": ["filling", "indexing"],
}


@dataclass(frozen=True)
class Generation:
    """A row of `generations`, its encoder's name and fingerprint, and whether searches can reach its table."""

    id: int
    encoder_id: int
    encoder: str
    fingerprint: str
    onnx_path: str
    onnx_sha256: str
    dims: int
    state: str
    index_method: str
    lists: int | None
    probes: int | None
    index_recall: float | None
    row_count: int | None
    metrics: dict[str, Any]
    error: str | None
    created_at: datetime
    filled_at: datetime | None
    indexed_at: datetime | None
    activated_at: datetime | None
    retired_at: datetime | None
    attached: bool

    @property
    def rejected(self) -> list[int]:
        """Chunks that this encoder gave no usable vector for; they do not count as missing."""
        return [int(chunk_id) for chunk_id in self.metrics.get("rejected_chunks", [])]

    @property
    def long(self) -> Long:
        """What was done with chunks that are longer than the encoder reads."""
        return "windows" if self.metrics.get("long") == "windows" else "truncate"

    @property
    def long_chunks(self) -> int:
        """Vectors that were written for such chunks."""
        return int(self.metrics.get("long_chunks", 0))


@dataclass(frozen=True)
class GenerationSummary:
    """What `generations list` shows of one."""

    id: int
    encoder: str
    state: str
    index_method: str
    lists: int | None
    probes: int | None
    index_recall: float | None
    row_count: int | None
    rejected: int
    long: str
    long_chunks: int
    size_bytes: int | None
    is_previous: bool
    precision: str | None
    """float32, float16 or int8; None where it was not noted yet and the encoder's folder is not on this machine."""
    onnx_path: str
    onnx_sha256: str
    error: str | None
    created_at: datetime
    indexed_at: datetime | None
    activated_at: datetime | None
    retired_at: datetime | None


def list_generations(conn: Connection) -> list[GenerationSummary]:
    """Return all generations, oldest first."""
    with conn.cursor(row_factory=class_row(GenerationSummary)) as cursor:
        found = cursor.execute(query("list_generations"), {}).fetchall()
    return [replace(one, precision=one.precision or precision_of(one.onnx_path, one.onnx_sha256)) for one in found]


def precision_of(onnx_path: str, onnx_sha256: str) -> str | None:
    """Return the precision of the graph that filled a generation, as its folder says; None where that is not here."""
    try:
        manifest = load_manifest(Path(onnx_path), verify=False)
    except EncoderError:
        return None
    return manifest.precision if manifest.onnx_sha256 == onnx_sha256 else None


def get_generation(conn: Connection, generation_id: int) -> Generation:
    """Return one generation.

    Raises:
        GenerationError: there is none of this number.
    """
    with conn.cursor(row_factory=class_row(Generation)) as cursor:
        found = cursor.execute(query("get_generation"), {"id": generation_id}).fetchone()
    if found is None:
        raise GenerationError(f"There is no generation {generation_id}.", remedy="See `pgembed generations list`.")
    return found


def active_id(conn: Connection) -> int | None:
    """Return the generation that answers searches; None while none does."""
    row = conn.execute(query("get_active_generation")).fetchone()
    return None if row is None else int(row[0])


def previous_id(conn: Connection) -> int | None:
    """Return the generation that `rollback` goes back to; None where there is none."""
    row = conn.execute(query("get_active_generation")).fetchone()
    return None if row is None or row[1] is None else int(row[1])


def change_state(conn: Connection, generation_id: int, state: str, *, error: str | None = None) -> None:
    """Take a generation to `state`: the one place where states change.

    Raises:
        GenerationError: it is in a state from which that cannot be reached.
    """
    changed = conn.execute(
        query("change_generation_state"),
        {"id": generation_id, "state": state, "allowed": _ALLOWED[state], "error": error},
    ).fetchone()
    if changed is None:
        found = get_generation(conn, generation_id)
        raise GenerationError(
            f"Generation {generation_id} is {found.state}: it cannot become {state}.",
            remedy=None if found.state == "failed" else "Finish it first: pgembed reindex",
        )


def activate(conn: Connection, generation_id: int, force: bool = False) -> None:
    """Let searches be answered by this generation; `force` overrides what stands against it, and is recorded.

    Raises:
        GenerationError: it is not there or not ready, or (without `force`) something stands against it; all is listed.
    """
    with conn.transaction():
        conn.execute(query("lock_active_generation"))
        generation = get_generation(conn, generation_id)
        if generation.state == "active":
            return
        if not generation.attached or generation.state not in _ALLOWED["active"]:
            because = f" ({generation.error})" if generation.error else ""
            raise GenerationError(
                f"Generation {generation_id} is {generation.state}{because}: only a ready one can be activated.",
                remedy=f"Finish it: pgembed reindex --artefact {generation.onnx_path}",
            )
        if problems := obstacles(conn, generation):
            if not force:
                raise GenerationError(
                    f"Generation {generation_id} should not be activated:\n"
                    + "\n".join(f"  - {problem}" for problem in problems),
                    remedy=f"Put it right: pgembed reindex --artefact {generation.onnx_path}; or add --force.",
                )
            _note(conn, generation_id, forced={"at": datetime.now().astimezone().isoformat(), "despite": problems})
        _point_to(conn, generation_id)


def obstacles(conn: Connection, generation: Generation) -> list[str]:
    """Return what stands against activating a generation; empty when nothing does."""
    problems = []
    if missing := table.count_missing(conn, generation.id, generation.rejected):
        problems.append(f"{missing:,} chunks have no vector in it")
    index = index_name(generation.id, "ivfflat"), index_name(generation.id, generation.index_method)
    problems += [
        f"its index {name} is missing or invalid" for name in dict.fromkeys(index) if not index_is_valid(conn, name)
    ]
    if generation.probes is None:
        problems.append("its index was never calibrated")
    folder = Path(generation.onnx_path)
    if folder.exists():  # on another machine it may be elsewhere; there the search checks it
        try:
            if load_manifest(folder).onnx_sha256 != generation.onnx_sha256:
                problems.append(f"the encoder in {folder} is not the one that made its vectors")
        except EncoderError as error:
            problems.append(error.message)
    return problems


def rollback(conn: Connection) -> int:
    """Go back to the generation that was active before, and return its id. Doing it twice comes back.

    Raises:
        GenerationError: none was active before, or it has been pruned, be it half.
    """
    with conn.transaction():
        conn.execute(query("lock_active_generation"))
        previous = previous_id(conn)
        if previous is None:
            raise GenerationError(
                "There is no generation to go back to.", remedy="See `pgembed generations list`, then activate one."
            )
        if not get_generation(conn, previous).attached:
            raise GenerationError(
                f"Generation {previous} is no longer searchable and cannot be gone back to.",
                remedy=f"Its removal was cut short; finish it: pgembed generations prune {previous} --include-previous",
            )
        _point_to(conn, previous)
    return previous


def prune(
    conn: Connection, keep: int = 2, *, ids: list[int] | None = None, include_previous: bool = False
) -> list[int]:
    """Drop generations that are not needed any more, and return them.

    Without `ids`: all failed ones, and retired ones but for the newest, so that `keep` searchable ones stay (the
    active and the previous one count among them). With `ids`: these, whatever their state. Never the active one, and
    the one that `rollback` goes back to only with `include_previous`. Tables that no generation claims go too.

    Raises:
        GenerationError: an id is unknown, protected, or being filled at this moment.
    """
    active, previous = active_id(conn), previous_id(conn)
    protected = {active} if include_previous else {active, previous}
    if ids is None:
        known = list_generations(conn)
        retired = [g.id for g in known if g.state == "retired" and g.id not in protected]
        spare = max(0, keep - len(protected - {None}))
        doomed = [g.id for g in known if g.state == "failed"] + retired[: max(0, len(retired) - spare)]
    else:
        for generation_id in ids:
            get_generation(conn, generation_id)
            if generation_id in protected:
                raise _protected(generation_id, active)
        doomed = ids
    doomed = sorted(set(doomed))
    for generation_id in doomed:
        _drop(conn, generation_id)
    for (leftover,) in conn.execute(query("leftover_tables")).fetchall():
        table.drop(conn, leftover)
    return doomed


def _protected(generation_id: int, active: int | None) -> GenerationError:
    if generation_id == active:
        return GenerationError(f"Generation {generation_id} is active and stays.", remedy="Activate another one first.")
    return GenerationError(
        f"Generation {generation_id} is the one that rollback goes back to, and stays.",
        remedy="Add --include-previous if you do not want to go back.",
    )


def _drop(conn: Connection, generation_id: int) -> None:
    encoder_id = get_generation(conn, generation_id).encoder_id
    with encoder_lock(conn, encoder_id, wait_s=0):
        table.drop(conn, generation_id)
        conn.execute(query("delete_generation"), {"id": generation_id})


def _point_to(conn: Connection, generation_id: int) -> None:
    """Move the pointer, and the states with it, in the caller's transaction."""
    old = active_id(conn)
    if old is not None:
        change_state(conn, old, "retired")
    change_state(conn, generation_id, "active")
    conn.execute(query("point_to_generation"), {"id": generation_id})


def _note(conn: Connection, generation_id: int, **metrics: Any) -> None:
    conn.execute(query("note_generation_metrics"), {"id": generation_id, "metrics": Jsonb(metrics)})
