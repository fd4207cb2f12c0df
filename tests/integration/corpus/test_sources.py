"""Which source a folder is."""

from pathlib import Path

import psycopg
import pytest
from fixtures_cli import pgembed

from pgembed.corpus.sources import find_or_add
from pgembed.errors import CorpusError


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\tb", "a\0b"])
def test_a_name_that_would_break_what_is_printed_is_refused(
    conn: psycopg.Connection, tmp_path: Path, name: str
) -> None:
    with pytest.raises(CorpusError, match="cannot be the name of a source"):
        find_or_add(conn, tmp_path, name)
    assert find_or_add(conn, tmp_path, "größer als 見出し")[1] == "größer als 見出し"


def test_a_new_name_for_a_source_is_said_to_move_its_files(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f():\n    return 1\n")
    for name, moves in (("shop", False), ("shop", False), ("store", True)):
        outcome = pgembed("ingest", str(tmp_path), "--name", name, "--dsn", database_url)
        assert outcome.code == 0
        assert ("move to other splits" in outcome.stderr) == moves
