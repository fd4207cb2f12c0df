"""Which source a folder is."""

from pathlib import Path

import psycopg
import pytest

from pgembed.corpus.sources import find_or_add
from pgembed.errors import CorpusError


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\tb", "a\0b"])
def test_a_name_that_would_break_what_is_printed_is_refused(
    conn: psycopg.Connection, tmp_path: Path, name: str
) -> None:
    with pytest.raises(CorpusError, match="cannot be the name of a source"):
        find_or_add(conn, tmp_path, name)
    assert find_or_add(conn, tmp_path, "größer als 見出し")[1] == "größer als 見出し"
