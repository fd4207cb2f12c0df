"""`pgembed doctor`: what commonly goes wrong, each with its remedy."""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psycopg
import typer

from pgembed.cli.common import DsnOption, JsonOption, console, print_json, printable
from pgembed.db.connection import Problem

# bytes that pgvector wants for the lists of an IVFFLAT build: 69 MB were seen at 50,000 rows
_INDEX_BYTES_PER_ROW = 1400


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("doctor")(doctor)


def doctor(dsn: DsnOption = None, as_json: JsonOption = False) -> None:
    """Check the server, the schema, the engines and the active generation. Exit code 1 when something is wrong.

    \b
    Examples:
        pgembed doctor
        pgembed doctor --dsn postgresql://me@db.example.com/app --json
    """
    problems = [*_engines(), *_database(dsn)]
    if as_json:
        print_json({"problems": [{"what": p.what, "remedy": p.remedy} for p in problems]})
    for problem in [] if as_json else problems:
        console.print(printable(f"✗ {problem.what}\n  {problem.remedy}"), markup=False)
    if problems:
        raise typer.Exit(1)
    if not as_json:
        console.print("Nothing is wrong.")


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def _engines() -> Iterator[Problem]:
    plain, gpu = _installed("onnxruntime"), _installed("onnxruntime-gpu")
    if plain and gpu:
        yield Problem(
            "onnxruntime and onnxruntime-gpu are both installed; they overwrite each other's files.",
            "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install one of them again.",
        )
    if not plain and not gpu:
        yield Problem(
            "ONNX Runtime is not installed: reindex and search need it.",
            "pip install 'pgembed-code[onnx]' (or 'pgembed-code[onnx-gpu]' where CUDA is).",
        )


def _database(dsn: str | None) -> Iterator[Problem]:
    from pgembed.db.connection import connect, preflight
    from pgembed.db.migrations import require_current
    from pgembed.errors import DatabaseError, SchemaError

    try:
        conn = connect(dsn)
    except DatabaseError as error:
        yield Problem(error.message, error.remedy or "")
        return
    with conn:
        yield from preflight(conn)
        try:
            require_current(conn)
        except SchemaError as error:
            yield Problem(error.message, error.remedy or "")
            return
        yield from _contents(conn)


def _contents(conn: psycopg.Connection) -> Iterator[Problem]:
    from pgembed.db.sql import query

    for (name,) in conn.execute(query("doctor_leftover_tables")):
        yield Problem(f"The table pgembed.{name} belongs to no generation.", "pgembed generations prune")
    for name, *_ in conn.execute(query("doctor_stale_statistics")):
        yield Problem(f"The table pgembed.{name} was never analysed.", f"ANALYZE pgembed.{name};")
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
    active = conn.execute(query("doctor_active_artefact")).fetchone()
    if active is not None and not (Path(active[1]) / "model.onnx").exists():
        yield Problem(
            f"The model of the active generation {active[0]} is not on this machine: {active[1]}",
            "Copy the folder here, or export the encoder again and reindex.",
        )
