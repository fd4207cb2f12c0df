"""What an ingest leaves for the planner to know, however it went."""

from pathlib import Path

import psycopg
import pytest

from pgembed.corpus.ingest import ingest
from pgembed.corpus.slices import SliceWriter

_ANALYSED = """
    SELECT count(last_analyze) = count(*) FROM pg_stat_user_tables
     WHERE schemaname = 'pgembed'
       AND relname IN ('code_chunks', 'chunk_locations', 'tokens', 'source_files', 'lexical_documents')
"""


def _is_analysed(conn: psycopg.Connection) -> bool:
    conn.execute("SELECT pg_stat_force_next_flush()")
    return conn.execute(_ANALYSED).fetchone() == (True,)


def test_one_that_only_finishes_what_another_wrote_analyses_it(
    conn: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.py").write_text("def one(value):\n    return value\n")
    with monkeypatch.context() as patch:

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(SliceWriter, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            ingest(conn, tmp_path)
    assert conn.execute("SELECT count(*) FROM pgembed.code_chunks").fetchone() == (1,)
    assert not _is_analysed(conn)
    assert ingest(conn, tmp_path).chunks_new == 0
    assert _is_analysed(conn)


def test_one_that_finds_nothing_changed_analyses_nothing(conn: psycopg.Connection, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def one(value):\n    return value\n")
    ingest(conn, tmp_path)
    assert _is_analysed(conn)
    when = "SELECT last_analyze FROM pg_stat_user_tables WHERE relname = 'lexical_documents'"
    before = conn.execute(when).fetchone()
    ingest(conn, tmp_path)
    conn.execute("SELECT pg_stat_force_next_flush()")
    assert conn.execute(when).fetchone() == before
