"""Which source a path is: the one with the same root, or a new one under a name that is free. Writes `sources`."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from pgembed.db.sql import query
from pgembed.errors import CorpusError
from pgembed.progress import SILENT, Progress


def find_or_add(conn: psycopg.Connection, root: Path, name: str | None, progress: Progress = SILENT) -> tuple[int, str]:
    """Return id and name of the source for `root`.

    The same root is the same source; `name` renames it. Without a name a new source has its folder's, with the parent
    folder before it or a number behind where that is taken. A source whose own root is gone has moved here.

    Raises:
        CorpusError: `name` belongs to another folder, which is still there.
    """
    if name is not None and (not name.strip() or not name.isprintable()):
        raise CorpusError(f"{name!r} cannot be the name of a source.", remedy="Use letters and signs that are printed.")
    with conn.transaction():
        conn.execute(query("lock_sources"))
        sources = {row[1]: (row[0], row[2]) for row in conn.execute(query("list_sources"))}
        here = next((known for known, (_, known_root) in sources.items() if known_root == str(root)), None)
        if name is None:
            name = here or _free_name(root, sources)
        taken = sources.get(name)
        if taken is not None and taken[1] != str(root) and (here is not None or Path(taken[1]).exists()):
            raise CorpusError(
                f"The source {name!r} is {taken[1]}; it cannot be {root} as well.", remedy="Choose another --name."
            )
        source_id = sources[here][0] if here is not None else taken[0] if taken is not None else None
        row = conn.execute(
            query("write_source"), {"id": source_id, "name": name, "root": str(root)}
        ).fetchone()  # fmt: skip
        assert row is not None  # noqa: S101 - the statement returns the row that it wrote
    if here is not None and here != name:
        progress.say(
            f"{here} is called {name} from now on: its files move to other splits, and a model that was trained before "
            "has seen files that are test now"
        )
    return int(row[0]), name


@contextmanager
def only_one(conn: psycopg.Connection, source_id: int, name: str, progress: Progress) -> Iterator[None]:
    """Hold the lock of one source: the second of two runs waits, and then finds nothing left to do."""
    source = {"source_id": source_id}
    row = conn.execute(query("try_lock_source"), source).fetchone()
    if row is None or not row[0]:
        progress.say(f"waiting for another ingest of {name}")
        conn.execute(query("lock_source"), source)
    try:
        yield
    finally:
        if not conn.closed:  # a connection that is lost has lost its locks too
            conn.execute(query("unlock_source"), source)


def known_paths(conn: psycopg.Connection, root: Path) -> set[str]:
    """Return the paths that were ingested from the source at `root`; none where there is no such source."""
    return {row[0] for row in conn.execute(query("paths_below_root"), {"root": str(root)})}


def git_revision(root: Path) -> str | None:
    """Return the commit that is checked out at `root`, or None where git knows of none."""
    folder = root if root.is_dir() else root.parent
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _free_name(root: Path, sources: dict[str, tuple[int, str]]) -> str:
    def is_free(name: str) -> bool:
        return name not in sources or not Path(sources[name][1]).exists()

    plain = root.name or "root"
    with_parent = f"{root.parent.name}/{plain}".lstrip("/")
    for name in (plain, with_parent):
        if is_free(name):
            return name
    number = 2
    while not is_free(f"{with_parent}-{number}"):
        number += 1
    return f"{with_parent}-{number}"
