"""Which generation a reindex works on: the one of this very encoder, or a new one.

Reads `code_chunks`; writes `generations`, and makes the new one's table.
"""

from typing import Any

import psycopg

from pgembed.db.sql import query
from pgembed.encoders.artefact import Manifest
from pgembed.encoders.windows import Long
from pgembed.errors import GenerationError
from pgembed.vectors import table
from pgembed.vectors.generations import Generation, get_generation

Connection = psycopg.Connection[Any]


class NothingToEmbedError(GenerationError):
    """There is no chunk in the database."""


def find_or_create(
    conn: Connection, manifest: Manifest, encoder_id: int, index_method: str | None, long: Long | None, *, fresh: bool
) -> tuple[Generation, str]:
    """Return the generation to work on, and whether it is 'new', 'resumed' or 'incremental'.

    Raises:
        NothingToEmbedError: there is no chunk.
        GenerationError: the generation has another index method.
    """
    identity = {"encoder_id": encoder_id, "onnx_sha256": manifest.onnx_sha256, "long": long}
    path = str(manifest.path.absolute())
    method = index_method or "ivfflat"
    if fresh:
        row = conn.execute(query("find_fresh_generation"), {**identity, "index_method": method}).fetchone()
    else:
        row = conn.execute(query("find_generation"), identity).fetchone()
    if row is not None:
        generation = get_generation(conn, row[0])
        if index_method not in (None, generation.index_method):
            raise GenerationError(
                f"Generation {generation.id} of this encoder has the index method {generation.index_method}, "
                f"not {index_method}.",
                remedy=f"Leave --index away to go on with it, or build another one: --fresh --index {index_method}",
            )
        noted = {"id": generation.id, "onnx_path": path, "precision": manifest.precision}
        conn.execute(query("note_generation_artefact"), noted)
        return generation, "resumed" if generation.state in ("filling", "indexing") else "incremental"
    count = conn.execute(query("count_chunks")).fetchone()
    if count is None or count[0] == 0:
        raise NothingToEmbedError("There are no chunks to embed.", remedy="Bring some in first: pgembed ingest PATH")
    with conn.transaction():  # row and table together: neither is ever without the other
        inserted = conn.execute(
            query("insert_generation"),
            {
                **identity,
                "onnx_path": path,
                "dims": manifest.spec.dimensions,
                "index_method": method,
                "long": long or "truncate",
                "precision": manifest.precision,
            },
        ).fetchone()
        assert inserted is not None  # noqa: S101 - RETURNING gives the row
        table.create(conn, inserted[0])
    return get_generation(conn, inserted[0]), "new"


def find_finished(conn: Connection, manifest: Manifest, encoder_id: int) -> Generation:
    """Return the finished generation of this encoder, the active one before others.

    Raises:
        GenerationError: there is none.
    """
    identity = {"encoder_id": encoder_id, "onnx_sha256": manifest.onnx_sha256, "long": None}
    row = conn.execute(query("find_generation"), identity).fetchone()
    generation = None if row is None else get_generation(conn, row[0])
    if generation is None or not generation.attached or generation.state in ("filling", "indexing"):
        raise GenerationError(
            f"There is no finished generation of {manifest.spec.name} whose index could be made anew.",
            remedy="Finish one: pgembed reindex",
        )
    return generation
