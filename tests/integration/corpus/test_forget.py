"""`pgembed sources`: what is forgotten is gone, and nothing else is."""

import json
import shutil
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fixtures_cli import pgembed

from pgembed.corpus import forget as forgetting
from pgembed.corpus.forget import forget
from pgembed.corpus.ingest import ingest
from pgembed.errors import CorpusError
from pgembed.mining.pairs import find_pairs

_CONTENT = {
    "chunks": "SELECT sha256, symbol FROM pgembed.code_chunks ORDER BY 1",
    "places": """SELECT s.name, l.path, l.start_line, c.sha256 FROM pgembed.chunk_locations l
                   JOIN pgembed.sources s ON s.id = l.source_id JOIN pgembed.code_chunks c ON c.id = l.chunk_id
                  ORDER BY 1, 2, 3, 4""",
    "words": "SELECT token, document_frequency FROM pgembed.tokens WHERE document_frequency > 0 ORDER BY 1",
    "rejects": "SELECT path, reason FROM pgembed.rejected_items ORDER BY 1, 2",
    "pairs": """SELECT a.sha256, b.sha256, p.jaccard FROM pgembed.candidate_pairs p
                  JOIN pgembed.code_chunks a ON a.id = p.chunk_a JOIN pgembed.code_chunks b ON b.id = p.chunk_b
                 ORDER BY least(a.sha256, b.sha256), greatest(a.sha256, b.sha256)""",
}


def content(conn: psycopg.Connection) -> dict[str, Any]:
    return {what: conn.execute(statement).fetchall() for what, statement in _CONTENT.items()}  # type: ignore[call-overload]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two sources that have one function in common."""
    kept, other = tmp_path / "kept", tmp_path / "other"
    for folder, names in ((kept, "abcd"), (other, "dxyz")):
        folder.mkdir()
        for name in names:
            words = " + ".join(f"{name}{number} * 2" for number in range(12))
            (folder / f"{name}.py").write_text(
                f'def add_{name}(first, second):\n    """Add {name}."""\n    return {words}\n'
            )
    (other / "broken.py").write_bytes(b"\0")
    return kept, other


def test_what_is_left_is_what_there_would_be_without_it(
    conn: psycopg.Connection, database_url: str, folders: tuple[Path, Path]
) -> None:
    kept, other = folders
    ingest(conn, kept)
    find_pairs(conn, min_jaccard=0.1)
    before = content(conn)
    ingest(conn, other)
    find_pairs(conn, min_jaccard=0.1)
    assert len(content(conn)["pairs"]) > len(before["pairs"]) > 0
    shutil.rmtree(other)  # the folder need not be there any more

    listed = json.loads(pgembed("sources", "list", "--json", "--dsn", database_url).stdout)
    assert [(source["name"], source["files"], source["chunks"]) for source in listed] == [
        ("kept", 4, 4),
        ("other", 4, 4),
    ]
    outcome = pgembed("sources", "forget", "other", "--json", "--dsn", database_url)
    assert json.loads(outcome.stdout) == {"source": "other", "files": 4, "chunks": 3}
    assert content(conn) == before
    assert "other" not in pgembed("sources", "list", "--dsn", database_url).stdout
    assert pgembed("pairs", "--min-jaccard", "0.1", "--dsn", database_url).code == 0  # triplets follow
    assert pgembed("doctor", "--strict", "--dsn", database_url).stdout == "Nothing is wrong.\n"


def test_an_interrupted_one_goes_on(
    conn: psycopg.Connection, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, other = folders
    ingest(conn, kept)
    before = content(conn)
    ingest(conn, other)
    monkeypatch.setattr(forgetting, "_SLICE", 1)
    remove, calls = forgetting.SliceWriter.remove, []

    def interrupted(self: Any, paths: list[str]) -> None:
        calls.append(paths)
        if len(calls) == 3:
            raise KeyboardInterrupt
        remove(self, paths)

    monkeypatch.setattr(forgetting.SliceWriter, "remove", interrupted)
    with pytest.raises(KeyboardInterrupt):
        forget(conn, "other")
    assert forget(conn, "other").files_deleted == 2
    assert content(conn) == before


def test_a_source_that_is_not_there_is_named_with_those_that_are(
    conn: psycopg.Connection, folders: tuple[Path, Path]
) -> None:
    ingest(conn, folders[0])
    with pytest.raises(CorpusError, match="There is no source 'shop'; there are: kept"):
        forget(conn, "shop")
