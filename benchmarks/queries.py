"""What benchmarks ask for: first lines of docstrings that stand in the database."""

import psycopg

_LINES = """
    SELECT DISTINCT left(split_part(docstring, E'\\n', 1), 200) AS line FROM pgembed.code_chunks
     WHERE length(split_part(docstring, E'\\n', 1)) > 20 ORDER BY line LIMIT %s
"""


def docstring_lines(conn: psycopg.Connection, most: int) -> list[str]:
    """Return up to `most` distinct first lines of at least 21 characters, in alphabetical order."""
    return [row[0] for row in conn.execute(_LINES, (most,))]
