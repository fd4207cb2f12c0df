"""Splits and triplets: no leak, every row obeys its rule, and the same code gives the same rows in any order."""

import random
from itertools import pairwise

import psycopg
import pytest
from fixtures_chunks import Chunk, add_chunks
from psycopg.rows import dict_row

from pgembed.mining.pairs import find_pairs
from pgembed.mining.triplets import are_stale, counts, refresh_triplets, sample, warnings

WORDS = [f"w{a}{b}" for a in "abcdefghij" for b in "abcdefghijklmnopqrst"]


def corpus(seed: int = 7, count: int = 260) -> list[Chunk]:
    """Functions in some files: copies, look-alikes and strangers, most with a docstring, some standing twice."""
    chance = random.Random(seed)  # noqa: S311 - a repeatable sample
    centres = [frozenset(chance.sample(WORDS, 16)) for _ in range(count // 6)]
    chunks = []
    for number in range(count):
        tokens = chance.choice(centres) ^ frozenset(chance.sample(WORDS, chance.randrange(9)))
        if number % 5 == 0:  # a stranger
            tokens = frozenset(chance.sample(WORDS, 16))
        docstring = f"Describe what number {number % 230} does here.\n\nMore {number}." if number % 4 else None
        chunk = Chunk(
            tokens=tokens,
            body=f"def f{number}():\n    return " + " + ".join(sorted(tokens)),
            path=f"dir{number % 7}/file{number % 29}.py",
            docstring=docstring,
            language="go" if number % 11 == 0 else "python",
            line=1 + number * 3,
        )
        chunks.append(chunk)
        if number % 17 == 0:  # the same code in another file
            chunks.append(Chunk(**{**vars(chunk), "path": f"elsewhere/file{number}.py"}))
    return chunks


def mine(conn: psycopg.Connection) -> None:
    find_pairs(conn, min_jaccard=0.4)
    refresh_triplets(conn)


def rows(conn: psycopg.Connection, view: str = "triplets") -> list[dict[str, object]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(f"SELECT * FROM pgembed.{view} ORDER BY ordinal").fetchall()


@pytest.fixture
def mined(conn: psycopg.Connection) -> dict[int, Chunk]:
    """The corpus, mined; its chunks by id."""
    chunks = corpus()
    ids = add_chunks(conn, chunks)
    mine(conn)
    return {ids[chunk.sha256]: chunk for chunk in reversed(chunks)}


def jaccard(a: Chunk, b: Chunk) -> float:
    return len(a.tokens & b.tokens) / len(a.tokens | b.tokens)


def test_no_chunk_nor_near_duplicate_is_in_two_splits(conn: psycopg.Connection, mined: dict[int, Chunk]) -> None:
    splits = dict(conn.execute("SELECT chunk_id, split FROM pgembed.chunk_splits").fetchall())
    assert splits.keys() == mined.keys()
    assert {"train", "validation", "test"} <= set(splits.values())
    leaks = {
        (a, b)
        for a in mined
        for b in mined
        if None not in (splits[a], splits[b]) and splits[a] != splits[b] and jaccard(mined[a], mined[b]) >= 0.8
    }
    assert leaks == set()
    # and the rule had something to do
    assert [s for s in splits.values() if s is None]


def test_a_split_holds_whole_files(conn: psycopg.Connection, mined: dict[int, Chunk]) -> None:
    straddling = conn.execute(
        """SELECT l.path FROM pgembed.chunk_locations l JOIN pgembed.chunk_splits s USING (chunk_id)
            WHERE s.split IS NOT NULL GROUP BY l.source_id, l.path HAVING count(DISTINCT s.split) > 1"""
    ).fetchall()
    assert straddling == []


def test_chains_of_near_duplicates_are_one_cluster(conn: psycopg.Connection) -> None:
    # each is a near-duplicate of the next alone; the cluster is the whole chain
    chain = [Chunk(frozenset(WORDS[at : at + 30]), f"def f{at}(): pass", path=f"f{at}.py") for at in range(0, 160, 3)]
    ids = add_chunks(conn, chain)
    assert jaccard(chain[0], chain[-1]) == 0
    assert all(jaccard(a, b) >= 0.8 for a, b in pairwise(chain))
    mine(conn)
    found = conn.execute("SELECT DISTINCT cluster FROM pgembed.chunk_splits").fetchall()
    assert found == [(min(ids),)]
    reasons = dict(
        conn.execute("SELECT coalesce(split, reason), count(*) FROM pgembed.chunk_splits GROUP BY 1").fetchall()
    )
    assert set(reasons) == {"train", "a near-duplicate of it is in train"}


def test_every_docstring_triplet_obeys_its_rule(conn: psycopg.Connection, mined: dict[int, Chunk]) -> None:
    found = rows(conn, "triplets_docstring")
    assert len(found) > 100
    splits = dict(conn.execute("SELECT chunk_id, split FROM pgembed.chunk_splits").fetchall())
    rules = set()
    for row in found:
        anchor, negative = mined[row["anchor_id"]], mined[row["negative_id"]]
        assert row["kind"] == "docstring"
        assert row["positive_id"] == row["anchor_id"] != row["negative_id"]
        assert anchor.docstring is not None
        assert row["anchor"] == anchor.docstring.split("\n")[0]  # the first paragraph, as it is
        assert (row["positive"], row["negative"]) == (anchor.body, negative.body)
        assert row["negative_jaccard"] == pytest.approx(jaccard(anchor, negative))
        assert row["negative_jaccard"] < 0.8
        assert anchor.language == negative.language == row["language"]
        assert splits[row["anchor_id"]] == splits[row["negative_id"]] == row["split"]
        assert 1 / 2.5 <= len(anchor.tokens) / len(negative.tokens) <= 2.5
        assert (negative.docstring or "").split("\n")[0] != row["anchor"]
        rules.add(row["rule"])
        if row["rule"] == "docstring / look-alike":
            assert row["negative_jaccard"] >= 0.4
        if row["rule"] == "docstring / same file":
            assert anchor.path == negative.path or "elsewhere" in anchor.path + negative.path
    assert rules == {"docstring / look-alike", "docstring / same file", "docstring / like length"}


def test_the_negatives_are_the_hardest_that_were_tried(conn: psycopg.Connection, mined: dict[int, Chunk]) -> None:
    splits = dict(conn.execute("SELECT chunk_id, split FROM pgembed.chunk_splits").fetchall())
    chosen: dict[int, list[float]] = {}
    for row in rows(conn, "triplets_docstring"):
        chosen.setdefault(row["anchor_id"], []).append(row["negative_jaccard"])
    for anchor_id, similarities in chosen.items():
        anchor = mined[anchor_id]
        candidates = sorted(
            (
                jaccard(anchor, chunk)
                for chunk_id, chunk in mined.items()
                if chunk_id != anchor_id and splits[chunk_id] == splits[anchor_id] and chunk.language == anchor.language
                and 0.4 <= jaccard(anchor, chunk) < 0.8
                and (chunk.docstring or "").split("\n")[0] != (anchor.docstring or "").split("\n")[0]
                and 1 / 2.5 <= len(anchor.tokens) / len(chunk.tokens) <= 2.5
            ),
            reverse=True,
        )  # fmt: skip
        for expected, got in zip(candidates[:2], sorted(similarities, reverse=True), strict=False):
            assert got == pytest.approx(expected)


def test_every_described_chunk_in_a_split_gives_a_triplet(conn: psycopg.Connection, mined: dict[int, Chunk]) -> None:
    splits = dict(conn.execute("SELECT chunk_id, split FROM pgembed.chunk_splits").fetchall())
    anchors = {row["anchor_id"] for row in rows(conn, "triplets_docstring")}
    alone = {}  # a language's only chunks in a split have nothing to be told from
    for chunk_id, chunk in mined.items():
        alone.setdefault((chunk.language, splits[chunk_id]), []).append(chunk_id)
    missing = {
        chunk_id
        for chunk_id, chunk in mined.items()
        if chunk.docstring and splits[chunk_id] and len(alone[chunk.language, splits[chunk_id]]) > 4
    } - anchors
    assert missing == set()


def test_every_code_triplet_obeys_its_rule(conn: psycopg.Connection, mined: dict[int, Chunk]) -> None:
    found = rows(conn, "triplets_code")
    assert len(found) > 30
    for row in found:
        anchor, positive, negative = (mined[row[f"{role}_id"]] for role in ("anchor", "positive", "negative"))
        assert (row["anchor"], row["positive"], row["negative"]) == (anchor.body, positive.body, negative.body)
        assert 0.5 <= row["positive_jaccard"] < 0.8
        assert row["positive_jaccard"] == pytest.approx(jaccard(anchor, positive))
        assert row["negative_jaccard"] == pytest.approx(jaccard(anchor, negative))
        assert row["negative_jaccard"] <= 0.2
        assert jaccard(positive, negative) < 0.8
        assert anchor.language == positive.language == negative.language


def test_the_union_view_is_the_union(conn: psycopg.Connection, mined: dict[int, Chunk]) -> None:
    parts = rows(conn, "triplets_docstring") + rows(conn, "triplets_code")
    assert rows(conn) == sorted(parts, key=lambda row: row["ordinal"])
    assert [row["ordinal"] for row in rows(conn)] == list(range(1, len(parts) + 1))
    assert sum(count.triplets for count in counts(conn)) == len(parts)


def _texts(conn: psycopg.Connection) -> list[tuple[object, ...]]:
    leave = ("anchor_id", "positive_id", "negative_id")
    return [tuple(value for name, value in row.items() if name not in leave) for row in rows(conn)]


def test_another_order_of_insertion_gives_the_same_bytes(conn: psycopg.Connection) -> None:
    chunks = corpus()
    add_chunks(conn, chunks)
    mine(conn)
    first = _texts(conn)
    conn.execute("TRUNCATE pgembed.code_chunks, pgembed.sources, pgembed.tokens, pgembed.jaccard_ranks CASCADE")
    conn.execute("DELETE FROM pgembed.pair_runs")
    shuffled = list(reversed(chunks))
    # in two parts, the second found incrementally
    add_chunks(conn, shuffled[:230])
    mine(conn)
    add_chunks(conn, shuffled[230:])
    mine(conn)
    assert [mode for (mode,) in conn.execute("SELECT mode FROM pgembed.pair_runs ORDER BY id")] == [
        "full",
        "incremental",
    ]
    assert _texts(conn) == first
    refresh_triplets(conn)
    assert _texts(conn) == first


def test_the_seed_changes_the_splits(conn: psycopg.Connection, mined: dict[int, Chunk]) -> None:
    before = _texts(conn)
    conn.execute("UPDATE pgembed.mining_settings SET value = 1 WHERE name = 'seed'")
    refresh_triplets(conn)
    assert _texts(conn) != before


def test_shares_are_followed(conn: psycopg.Connection) -> None:
    row = conn.execute(
        """SELECT count(*) FILTER (WHERE s = 'train'), count(*) FILTER (WHERE s = 'validation') FROM
           (SELECT pgembed.split_of('here', 'file' || i) AS s FROM generate_series(1, 2000) AS i) AS x"""
    ).fetchone()
    assert row is not None
    assert 1540 < row[0] < 1660
    assert 150 < row[1] < 250


def test_filters_are_rows_a_person_can_change(conn: psycopg.Connection) -> None:
    chunks = corpus(count=120)
    tests = [Chunk(**{**vars(chunk), "path": f"tests/{chunk.path}", "body": chunk.body + " "}) for chunk in chunks[:30]]
    stub = Chunk(
        frozenset(WORDS[:9]), "def f():\n    raise NotImplementedError", docstring="Say what it should do here."
    )
    notice = Chunk(frozenset(WORDS[9:22]), "def g(): return 1", docstring="Copyright of somebody, all rights reserved.")
    ids = add_chunks(conn, [*chunks, *tests, stub, notice])
    conn.execute("UPDATE pgembed.mining_settings SET value = 1 WHERE name = 'train_share'")
    mine(conn)

    def anchors() -> set[object]:
        return {row["anchor_id"] for row in rows(conn)}

    assert not anchors() & {ids[chunk.sha256] for chunk in tests}
    assert not anchors() & {ids[stub.sha256], ids[notice.sha256]}
    conn.execute("UPDATE pgembed.mining_exclusions SET enabled = false")
    refresh_triplets(conn)
    assert anchors() & {ids[chunk.sha256] for chunk in tests}
    assert {ids[stub.sha256], ids[notice.sha256]} <= anchors()
    conn.execute("INSERT INTO pgembed.mining_exclusions VALUES ('go', 'language', '^go$', 'not ours')")
    refresh_triplets(conn)
    assert {row["language"] for row in rows(conn)} == {"python"}


@pytest.mark.parametrize(
    ("docstring", "anchor"),
    [
        ("One line only.", "One line only."),
        ("  First\n  paragraph. \n \nSecond.\n\nThird.", "First\n  paragraph."),
        ("a b c d e f", "a b c d e"),
        ("\n\n  x\r\n\r\ny", "x"),
        ("", None),
        (" \n ", None),
    ],
)
def test_the_anchor_is_the_first_paragraph(conn: psycopg.Connection, docstring: str, anchor: str | None) -> None:
    assert conn.execute("SELECT pgembed.docstring_anchor(%s, 5)", (docstring,)).fetchone() == (anchor,)


def test_sample_counts_and_warnings(conn: psycopg.Connection, mined: dict[int, Chunk]) -> None:
    shown = sample(conn, kind="docstring", split="train", language="python", limit=5)
    assert len(shown) == 5
    assert {(t.kind, t.split, t.language) for t in shown} == {("docstring", "train", "python")}
    assert any("docstring triplets" in said for said in warnings(conn, counts(conn)))
    assert not are_stale(conn)
    add_chunks(conn, [Chunk(frozenset({"new"}), "def new(): pass")])
    assert are_stale(conn)


def test_the_first_hundred_come_through_indexes(conn: psycopg.Connection, mined: dict[int, Chunk]) -> None:
    """A plan that sorts or hashes everything would make LIMIT wait for all."""
    for method in ("seqscan", "bitmapscan", "hashjoin", "mergejoin", "sort"):
        conn.execute(f"SET enable_{method} = off")
    plan = conn.execute("EXPLAIN SELECT * FROM pgembed.triplets ORDER BY ordinal LIMIT 100").fetchall()
    nodes = [line.split("->")[-1].strip() for (line,) in plan]
    assert [node for node in nodes if node.startswith(("Sort ", "Hash", "Seq Scan"))] == []
    assert any("triplet_candidates_pkey" in node for node in nodes)
