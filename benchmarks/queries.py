"""What benchmarks of search ask, lines of docstrings in the database, and of what: the generation that answers."""

from typing import Any

import psycopg

_LINES = """
    SELECT DISTINCT left(split_part(docstring, E'\\n', 1), 200) AS line FROM pgembed.code_chunks
     WHERE length(split_part(docstring, E'\\n', 1)) > 20 ORDER BY line LIMIT %s
"""

_ACTIVE = """
    SELECT e.name, g.row_count, g.index_method, current_setting('server_version'),
           (SELECT extversion FROM pg_extension WHERE extname = 'vector')
      FROM pgembed.generations g JOIN pgembed.encoders e ON e.id = g.encoder_id
     WHERE g.state = 'active'
"""


def docstring_lines(conn: psycopg.Connection, most: int) -> list[str]:
    """Return up to `most` distinct first lines of at least 21 characters, in alphabetical order."""
    return [row[0] for row in conn.execute(_LINES, (most,))]


def active_generation(conn: psycopg.Connection) -> tuple[Any, ...]:
    """Return its encoder's name, its vectors, its index method, and the versions of PostgreSQL and pgvector."""
    row = conn.execute(_ACTIVE).fetchone()
    assert row, "no generation is active: pgembed reindex --activate"
    return row
