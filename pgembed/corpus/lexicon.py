"""What the search by words reads of a chunk: the tokens of its body, its docstring and its symbol.

Reads `code_chunks`; writes `tokens`, `lexical_documents`, `lexical_statistics`.
"""

from typing import Any

import psycopg

from pgembed.db.sql import query
from pgembed.tokens import tokens

_PAGE = 5_000  # chunks whose docstrings are read at a time


def complete_lexicon(conn: psycopg.Connection[Any]) -> int:
    """Write the lexical documents that are missing or lack their docstring; return how many.

    The body's tokens are in the database already; only docstrings and symbols are split here. 100,000 chunks took 13 s,
    most of it the server's. Then tokens and documents are counted anew. To be called in a transaction that holds off
    other writers of chunks.
    """
    conn.execute(query("create_described"))
    written, after = 0, 0
    while page := conn.execute(query("undescribed_chunks"), {"after": after, "limit": _PAGE}).fetchall():
        after = page[-1][0]
        with conn.cursor() as cursor, cursor.copy("COPY pg_temp.described FROM STDIN") as copy:
            for chunk_id, symbol, docstring in page:
                copy.write_row((chunk_id, sorted(tokens(f"{symbol} {docstring or ''}"))))
        conn.execute(query("insert_described_tokens"))
        written += conn.execute(query("write_lexical_documents")).rowcount
        conn.execute(query("clear_described"))
    conn.execute(query("refresh_lexical_statistics"))
    return written
