"""Token sets that are alike, and put in with their tokens, as approximate pairs and the estimate read them."""

import hashlib
import random
from collections.abc import Iterable, Sequence

import psycopg


def look_alikes(count: int, seed: int = 0) -> list[frozenset[int]]:
    """Sets of some 20 tokens around some centres: pairs at every Jaccard."""
    chance = random.Random(seed)  # noqa: S311 - a repeatable sample
    centres = [frozenset(chance.sample(range(1, 500), 20)) for _ in range(max(count // 10, 1))]
    return [
        chance.choice(centres) ^ frozenset(chance.sample(range(1, 500), chance.randrange(12))) for _ in range(count)
    ]


def add_token_sets(
    conn: psycopg.Connection, sets: Iterable[frozenset[int]], *, first: int = 0, names: Sequence[int] | None = None
) -> dict[int, frozenset[int]]:
    """Insert the sets as chunks that stand nowhere; return them by id.

    Member m is the token "word m"; `names` is the order in which the tokens get their ids. A chunk's sha256 follows
    from its members and, for the same set put in again, from how often it was: `first` moves that count.
    """
    given = list(sets)
    members = names or sorted(set().union(*given))
    with conn.transaction(), conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO pgembed.tokens (token) SELECT 'word ' || m FROM unnest(%s::int[]) WITH ORDINALITY AS t(m, o)"
            " ORDER BY o ON CONFLICT DO NOTHING",
            (list(members),),
        )
        ids = dict(cursor.execute("SELECT substr(token, 6)::int, id FROM pgembed.tokens").fetchall())
        times: dict[frozenset[int], int] = {}
        shas, arrays = [], []
        for one in given:
            times[one] = times.get(one, first) + 1
            shas.append(hashlib.sha256(f"{sorted(one)} {times[one]}".encode()).digest())
            arrays.append(sorted(ids[m] for m in one))
        cursor.executemany(
            """INSERT INTO pgembed.code_chunks (sha256, language, kind, content, body, token_ids, line_count)
               VALUES (%s, 'python', 'function', '', '', %s, 1)""",
            list(zip(shas, arrays, strict=True)),
        )
        cursor.execute(
            """UPDATE pgembed.tokens t SET document_frequency = k.documents
                 FROM (SELECT u.id, count(*) AS documents FROM pgembed.code_chunks c, unnest(c.token_ids) AS u(id)
                        GROUP BY u.id) AS k
                WHERE k.id = t.id"""
        )
        known = dict(cursor.execute("SELECT sha256, id FROM pgembed.code_chunks").fetchall())
    return {known[sha]: one for sha, one in zip(shas, given, strict=True)}
