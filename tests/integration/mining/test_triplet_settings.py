"""Settings, exclusions and marks: all are used, what cannot be meant is refused, and a refresh applies a change."""

import psycopg
import pytest
from fixtures_chunks import Chunk, add_chunks
from fixtures_triplets import WORDS, Rules, Vectors, assert_same, corpus, mine, rows, settings_of, stored
from fixtures_vectors import MadeUpEncoder
from typer.testing import CliRunner

from pgembed.cli.app import app
from pgembed.errors import MiningError
from pgembed.mining.pairs import find_pairs
from pgembed.mining.triplets import refresh_triplets

# For each setting a value that must change something, and what else has to be set for it to matter.
CHANGES: dict[str, tuple[float, dict[str, float]]] = {
    "seed": (1, {}),
    "train_share": (0.5, {}),
    "validation_share": (0.2, {}),
    "near_duplicate": (0.7, {}),
    "pairs_min_tokens": (18, {}),
    "min_tokens": (18, {}),
    "max_tokens": (19, {}),
    "min_lines": (5, {}),
    "max_lines": (9, {}),
    "min_docstring_words": (7, {}),
    "max_anchor_words": (4, {}),
    "length_ratio": (1.1, {}),
    "docstring_negatives": (1, {}),
    "same_file_candidates": (0, {}),
    "like_length_candidates": (3, {}),
    "code_positive_min": (0.6, {}),
    "code_positives": (2, {}),
    "code_negative_max": (0.1, {}),
    "use_vectors": (1, {}),
    "vector_candidates": (2, {"use_vectors": 1}),
    "false_negative_margin": (0.9, {"use_vectors": 1}),
    "false_negative_ceiling": (0.5, {"use_vectors": 1}),
}


def change(conn: psycopg.Connection, **values: float) -> None:
    for name, value in values.items():
        assert conn.execute("UPDATE pgembed.mining_settings SET value = %s WHERE name = %s", (value, name)).rowcount


def test_every_setting_is_used_and_does_what_it_says(
    conn: psycopg.Connection, vectors: Vectors, encoder: MadeUpEncoder
) -> None:
    """Against brute force. The chunks and an active generation are there."""
    defaults = settings_of(conn)
    assert defaults.keys() == CHANGES.keys()
    for name, (value, others) in CHANGES.items():
        change(conn, **others)
        mine(conn)
        before = stored(conn)
        change(conn, **{name: value})
        if name == "pairs_min_tokens":
            find_pairs(conn, min_jaccard=0.4)
        refresh_triplets(conn)
        expected = Rules(corpus(), settings_of(conn), vectors).triplets()
        assert_same(stored(conn), expected)
        assert stored(conn) != before, f"{name} changes nothing"
        change(conn, **defaults)
    mine(conn)
    assert_same(stored(conn), Rules(corpus(), defaults, vectors).triplets())


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "UPDATE pgembed.mining_settings SET value = 1.5 WHERE name = 'near_duplicate'",
            "near_duplicate cannot be 1.5",
        ),
        ("UPDATE pgembed.mining_settings SET value = 'NaN' WHERE name = 'seed'", "seed cannot be NaN"),
        ("UPDATE pgembed.mining_settings SET value = 'Infinity' WHERE name = 'length_ratio'", "from 1 to 1000"),
        ("UPDATE pgembed.mining_settings SET value = 0 WHERE name = 'length_ratio'", "length_ratio cannot be 0"),
        ("UPDATE pgembed.mining_settings SET value = 2.5 WHERE name = 'docstring_negatives'", "a whole number"),
        ("UPDATE pgembed.mining_settings SET value = 300 WHERE name = 'max_anchor_words'", "from 1 to 256"),
        ("UPDATE pgembed.mining_settings SET value = null WHERE name = 'seed'", "seed cannot be null"),
        ("UPDATE pgembed.mining_settings SET name = 'sead' WHERE name = 'seed'", "no mining setting sead"),
        ("INSERT INTO pgembed.mining_settings VALUES ('sead', 1, 0, 2, true, '')", "no mining setting sead"),
        ("DELETE FROM pgembed.mining_settings WHERE name = 'seed'", "cannot be deleted"),
        ("TRUNCATE pgembed.mining_settings", "cannot be deleted"),
        ("INSERT INTO pgembed.mining_exclusions VALUES ('a', 'path', '(', 'b')", "parentheses"),
        ("INSERT INTO pgembed.mining_exclusions VALUES ('a', 'pith', 'a', 'b')", "field"),
        ("INSERT INTO pgembed.chunk_blocks VALUES ('abc', 'b')", "sha256"),
        ("SELECT pgembed.block_triplet(12345, 'b')", "no triplet 12345"),
        ("SELECT pgembed.block_chunk(12345, 'b')", "no chunk 12345"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(conn: psycopg.Connection, statement: str, message: str) -> None:
    with pytest.raises(psycopg.Error, match=message):
        conn.execute(statement)


def test_an_unknown_setting_is_told_which_there_are(conn: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
        conn.execute("INSERT INTO pgembed.mining_settings VALUES ('sead', 1, 0, 2, true, '')")
    assert "min_lines, min_tokens, near_duplicate" in str(caught.value.diag.message_hint)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_tokens": 500}, r"min_tokens \(500\) must not be above max_tokens \(400\)"),
        ({"min_lines": 301}, "min_lines"),
        ({"min_docstring_words": 61}, "max_anchor_words"),
        ({"code_positive_min": 0.8}, r"code_positive_min \(0.8\) must be below near_duplicate"),
        ({"code_negative_max": 0.5}, "code_negative_max"),
        ({"code_negative_max": 0.6, "min_lines": 301}, "code_negative_max.*; min_lines"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_the_refresh(
    conn: psycopg.Connection, values: dict[str, float], message: str
) -> None:
    add_chunks(conn, corpus(count=40))
    mine(conn)
    before = stored(conn)
    change(conn, **values)
    with pytest.raises(MiningError, match=message):
        refresh_triplets(conn)
    assert stored(conn) == before


def test_pairs_that_do_not_reach_far_enough_are_asked_for(conn: psycopg.Connection) -> None:
    add_chunks(conn, corpus(count=40))
    find_pairs(conn, min_jaccard=0.6)
    change(conn, near_duplicate=0.55, code_positive_min=0.5)
    with pytest.raises(MiningError, match=r"near_duplicate \(0.55\)") as caught:
        refresh_triplets(conn)
    assert "pgembed pairs --min-jaccard 0.55" in str(caught.value)
    find_pairs(conn, min_jaccard=0.55)
    refresh_triplets(conn)
    change(conn, pairs_min_tokens=12)
    find_pairs(conn, min_jaccard=0.55)
    change(conn, pairs_min_tokens=0)
    with pytest.raises(MiningError, match="pairs_min_tokens is 0"):
        refresh_triplets(conn)
    conn.execute("UPDATE pgembed.pair_runs SET state = 'joining' WHERE id = (SELECT max(id) FROM pgembed.pair_runs)")
    with pytest.raises(MiningError, match="interrupted"):
        refresh_triplets(conn)


def test_the_command_applies_a_changed_setting(conn: psycopg.Connection, database_url: str) -> None:
    add_chunks(conn, corpus())
    mine(conn)
    change(conn, docstring_negatives=1)
    plain = CliRunner().invoke(app, ["triplets", "--dsn", database_url])
    assert "changed since they were made: settings. Run `pgembed triplets --refresh`" in plain.output
    before = len(stored(conn))
    refreshed = CliRunner().invoke(app, ["triplets", "--refresh", "--dsn", database_url])
    assert refreshed.exit_code == 0, refreshed.output
    assert "out of date" not in refreshed.output
    assert len(stored(conn)) < before
    change(conn, min_tokens=500)
    refused = CliRunner().invoke(app, ["triplets", "--refresh", "--dsn", database_url])
    assert isinstance(refused.exception, MiningError)


def test_a_triplet_marked_as_bad_is_left_out_at_once_and_after_a_refresh(conn: psycopg.Connection) -> None:
    chunks = corpus()
    add_chunks(conn, chunks)
    mine(conn)
    everything = stored(conn)
    for kind in ("docstring", "code"):
        bad = next(row for row in rows(conn) if row["kind"] == kind)
        conn.execute("SELECT pgembed.block_triplet(%s, 'they do the same')", (bad["ordinal"],))
        assert bad["ordinal"] not in {row["ordinal"] for row in rows(conn)}
    assert len(rows(conn)) == len(everything) - 2
    marked = {(r.kind, r.anchor, r.positive, r.negative) for r in everything} & set(
        conn.execute("SELECT kind, anchor, positive, negative FROM pgembed.triplet_blocks").fetchall()
    )
    assert len(marked) == 2
    # the next best come in their place, nothing else changes; and the same after an ingest that gives other ids
    refresh_triplets(conn)
    after = stored(conn)
    assert marked & {(r.kind, r.anchor, r.positive, r.negative) for r in after} == set()
    assert len(set(everything) - set(after)) == 2
    assert len(rows(conn)) == len(after)
    conn.execute("TRUNCATE pgembed.code_chunks, pgembed.sources, pgembed.tokens, pgembed.jaccard_ranks CASCADE")
    add_chunks(conn, chunks[::-1])
    mine(conn)
    assert stored(conn) == after
    conn.execute("DELETE FROM pgembed.triplet_blocks")
    refresh_triplets(conn)
    assert stored(conn) == everything


def test_a_chunk_marked_as_bad_is_in_no_triplet(conn: psycopg.Connection) -> None:
    ids = add_chunks(conn, corpus())
    mine(conn)

    def holding(chunk: bytes) -> int:
        return sum(
            ids[chunk] in (row["anchor_id"], row["positive_id"], row["negative_id"]) for row in rows(conn)
        )  # fmt: skip

    roles = [row.negative for row in stored(conn) if row.kind == "code"] + [row.anchor for row in stored(conn)]
    for bad in (roles[0], roles[-1]):
        assert holding(bad)
        conn.execute("SELECT pgembed.block_chunk(%s, 'generated')", (ids[bad],))
        assert holding(bad) == 0
    left = len(rows(conn))
    refresh_triplets(conn)
    assert holding(roles[0]) == holding(roles[-1]) == 0
    assert len(rows(conn)) > left, "others take their place"


def test_a_negative_never_says_what_the_positive_says(conn: psycopg.Connection) -> None:
    """For code too: neither the words of the anchor's docstring nor those of the positive's."""
    same = "Return the sum of all the numbers."
    chunks = [
        Chunk(frozenset(WORDS[:20]), "def anchor(): pass"),
        Chunk(frozenset(WORDS[4:22]), "def positive(): pass", docstring=same),
        Chunk(frozenset([*WORDS[30:46], *WORDS[4:9]]), "def same(): pass", docstring=f"{same.upper()}  \n\nMore."),
        Chunk(frozenset([*WORDS[50:66], *WORDS[4:8]]), "def other(): pass", docstring="Do a thing entirely else."),
    ]
    ids = add_chunks(conn, chunks)
    change(conn, train_share=1)
    mine(conn)
    found = {
        (row["anchor_id"], row["positive_id"], row["negative_id"]) for row in rows(conn, "triplets_code")
    }  # fmt: skip
    anchor, positive, _, other = (ids[chunk.sha256] for chunk in chunks)
    assert found == {(anchor, positive, other), (positive, anchor, other)}
