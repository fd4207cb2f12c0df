"""What `pgembed doctor` looks at: the engines, the server, the schema, and what is in it."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from pgembed.db.preflight import Problem
from pgembed_code.installation import install_line, pip

# bytes that pgvector wants for the lists of an IVFFLAT build: 69 MB were seen at 50,000 rows
_INDEX_BYTES_PER_ROW = 1400
_MOST_DRIFT = 10  # differences of the schema that are named one by one

Connection = psycopg.Connection[Any]


def check_all(dsn: str | None, *, fix: bool = False, strict: bool = False) -> tuple[list[Problem], list[Problem]]:
    """Return the problems there are, and those that were there and are `fix`ed; `strict` looks for all there can be."""
    from pgembed.db.connection import connect
    from pgembed.db.remedies import explain
    from pgembed.errors import DatabaseError

    problems = list(_engines())
    try:
        conn = connect(dsn, access="session" if fix else "read")
    except DatabaseError as error:
        return [*problems, Problem(error.message, error.remedy or "")], []
    fixed: list[Problem] = []
    with conn:
        try:
            for problem in _database(conn, strict=strict):
                if fix and problem.fix is not None:
                    problem.fix(conn)
                    fixed.append(problem)
                else:
                    problems.append(problem)
        except psycopg.Error as error:  # no right to read something, a connection that broke
            if (explained := explain(error)) is None:
                raise
            problems.append(Problem(explained.message, explained.remedy or ""))
    return problems, fixed


def _engines() -> Iterator[Problem]:
    from pgembed.encoders.session import is_installed

    plain, gpu = is_installed("onnxruntime"), is_installed("onnxruntime-gpu")
    if plain and gpu:
        yield Problem(
            "onnxruntime and onnxruntime-gpu are both installed; they overwrite each other's files.",
            f"{pip('uninstall')} -y onnxruntime onnxruntime-gpu, then install one of them: {install_line('onnx')}, "
            "or onnx-gpu in its place",
        )
    if not plain and not gpu:
        yield Problem(
            "ONNX Runtime is not installed: reindex and search need it.",
            f"{install_line('onnx')} (or onnx-gpu in its place where CUDA is)",
        )


def _database(conn: Connection, *, strict: bool) -> Iterator[Problem]:
    from pgembed.db.migrations import require_current
    from pgembed.db.preflight import preflight
    from pgembed.errors import DatabaseError

    lacking = preflight(conn)
    yield from lacking
    try:
        require_current(conn)
    except DatabaseError as error:
        if not lacking:  # else `pgembed migrate` waits for what was just said
            yield Problem(error.message, error.remedy or "")
        return
    yield from _schema(conn)
    yield from _search_paths(conn)
    yield from _statistics(conn)
    yield from _contents(conn)
    yield from _active_model(conn)
    if strict:
        yield from _strictly(conn)


def _schema(conn: Connection) -> Iterator[Problem]:
    from pgembed.db.drift import find_drift

    drift = find_drift(conn)
    for difference in drift[:_MOST_DRIFT]:
        source = f"{difference.file} has the original." if difference.file else "sql/schema.sql has the original."
        yield Problem(f"The schema is not as `pgembed migrate` made it: {difference.what}.", source)
    if len(drift) > _MOST_DRIFT:
        yield Problem(f"The schema differs in {len(drift) - _MOST_DRIFT} more places.", "Compare with sql/schema.sql.")


def _search_paths(conn: Connection) -> Iterator[Problem]:
    """Roles for whom Alembic takes pgembed's tables for their application's, and would drop them."""
    from pgembed.db.sql import query

    for whose, path, undo in conn.execute(query("doctor_search_paths"), {}).fetchall():
        yield Problem(
            f"The schema pgembed is on the search_path of {whose} ({path}): the autogenerate of an application's "
            "Alembic that connects so would drop pgembed's tables.",
            f"{undo}, or hold them out in its env.py: docs/operating.md, An application's Alembic.",
            warning=True,
        )


def _statistics(conn: Connection) -> Iterator[Problem]:
    """Large tables whose plans are guesses; where autovacuum sees to it, that is a matter of a minute."""
    from pgembed.db.sql import query

    for name, autovacuum_comes in conn.execute(query("doctor_stale_statistics")).fetchall():
        waits = "autovacuum has not come to it yet" if autovacuum_comes else "autovacuum is off for it"
        yield Problem(
            f"The table pgembed.{name} was never analysed: {waits}.",
            f"ANALYZE pgembed.{name};",
            partial(_analyze, name),
            warning=autovacuum_comes,
        )


def _contents(conn: Connection) -> Iterator[Problem]:
    from pgembed.db.sql import query

    for (name,) in conn.execute(query("doctor_leftover_tables")).fetchall():
        yield Problem(
            f"The table pgembed.{name} belongs to no generation.", "pgembed generations prune", _drop_leftovers
        )
    orphans = conn.execute(query("doctor_orphan_pairs")).fetchone()
    if orphans is not None and orphans[0]:
        yield Problem(
            f"{orphans[0]:,} candidate pairs are of chunks that are gone (deleted at REPEATABLE READ during a run).",
            "pgembed pairs --full",
            lambda conn: conn.execute(query("doctor_remove_orphan_pairs")),
        )
    unfinished = conn.execute(query("doctor_unfinished_pairs")).fetchone()
    if unfinished is not None:
        what = f"Run {unfinished[0]} of pairs was left while {unfinished[1]}."
        yield Problem(what, "`pgembed pairs` goes on with it.")
    memory = conn.execute(query("doctor_memory")).fetchone()
    if memory is not None and memory[1] * _INDEX_BYTES_PER_ROW > memory[0]:
        yield Problem(
            f"maintenance_work_mem is {memory[0] >> 20} MB; an index over {memory[1]:,} chunks wants "
            f"{(memory[1] * _INDEX_BYTES_PER_ROW >> 20) + 1} MB.",
            "ALTER SYSTEM SET maintenance_work_mem = …; SELECT pg_reload_conf();  (reindex raises it for its own "
            "session where the role may)",
        )
    missing = conn.execute(query("doctor_unvectored_chunks")).fetchone()
    if missing is not None and missing[1]:
        yield Problem(
            f"{missing[1]:,} chunks have no vector in the active generation {missing[0]}; search does not find them.",
            "pgembed reindex",
        )


def _active_model(conn: Connection) -> Iterator[Problem]:
    """The model of the active generation: there, as it was exported, and able to run where it should."""
    from pgembed.db.sql import query
    from pgembed.encoders.artefact import load_manifest
    from pgembed.encoders.session import is_installed
    from pgembed.errors import EncoderError

    active = conn.execute(query("doctor_active_artefact")).fetchone()
    if active is None:
        return
    generation_id, place, onnx_sha256 = active
    if not (Path(place) / "model.onnx").exists():
        yield Problem(
            f"The model of the active generation {generation_id} is not on this machine: {place}",
            "Copy the folder here, or export the encoder again and reindex.",
        )
        return
    try:
        manifest = load_manifest(Path(place))
    except EncoderError as error:
        yield Problem(
            f"The model of the active generation {generation_id} is not as it was exported: {error.message}",
            error.remedy or "Export the encoder again, and reindex.",
        )
        return
    if manifest.onnx_sha256 != onnx_sha256:
        yield Problem(
            f"{place} holds another model than the one that filled the active generation {generation_id}.",
            "Export that encoder again to this folder, or reindex with the one that is there: pgembed reindex --help",
        )
    elif is_installed("onnxruntime-gpu"):
        yield from _gpu(Path(place))


def _strictly(conn: Connection) -> Iterator[Problem]:
    """Everything that must be so at any time, seen in one state of the database."""
    from pgembed.cli.invariants import violations
    from pgembed.cli.kept_files import broken_files
    from pgembed.db.connection import register_vectors
    from pgembed.db.sql import query

    register_vectors(conn)
    with conn.transaction():
        conn.execute(query("begin_snapshot"))
        conn.execute(query("use_vector_path"), {"local": True})
        yield from violations(conn)
        yield from broken_files(conn)


def _gpu(artefact: Path) -> Iterator[Problem]:
    """Where the GPU build is installed: whether it runs there. Only loading a model tells."""
    from pgembed.encoders.onnx_encoder import OnnxEncoder
    from pgembed.errors import PgembedError

    try:
        OnnxEncoder.load(artefact, provider="cuda")
    except PgembedError as error:
        yield Problem(f"onnxruntime-gpu is installed, but does not run on a GPU: {error.message}", error.remedy or "")


def _analyze(table: str, conn: Connection) -> None:
    from psycopg import sql

    from pgembed.db.sql import query

    conn.execute(sql.SQL(query("doctor_analyze")).format(table=sql.Identifier("pgembed", table)))


def _drop_leftovers(conn: Connection) -> None:
    from pgembed.vectors.generations import list_generations, prune

    prune(conn, keep=len(list_generations(conn)))  # the failed, and what no generation claims; every other one stays
