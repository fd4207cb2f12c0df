"""Splits and triplets: no leak, every row obeys its rule, and the same code gives the same rows in any order."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import psycopg
import pytest
from fixtures_chunks import Chunk, add_chunks
from fixtures_triplets import WORDS, Rules, assert_same, corpus, jaccard, mine, rows, settings_of, stored

from pgembed.mining.pairs import find_pairs
from pgembed.mining.triplets import are_stale, counts, refresh_triplets, sample, stale_inputs


@pytest.fixture
def mined(conn: psycopg.Connection) -> dict[int, Chunk]:
    """The corpus, mined; its chunks by id."""
    chunks = corpus()
    ids = add_chunks(conn, chunks)
    mine(conn)
    return {ids[chunk.sha256]: chunk for chunk in reversed(chunks)}


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


def test_all_of_it_is_what_brute_force_gives(conn: psycopg.Connection, mined: dict[int, Chunk]) -> None:
    expected = Rules(corpus(), settings_of(conn))
    keys = {chunk_id: chunk.sha256 for chunk_id, chunk in mined.items()}
    splits = conn.execute("SELECT chunk_id, split FROM pgembed.chunk_splits").fetchall()
    assert {keys[chunk_id]: split for chunk_id, split in splits} == expected.splits
    assert_same(stored(conn), expected.triplets())
    assert len(stored(conn)) > 200


def test_no_cluster_is_in_two_splits(conn: psycopg.Connection) -> None:
    """However long the chain of near-duplicates between two chunks; not even where its middle is in no split."""
    chains = [
        Chunk(
            frozenset(WORDS[at : at + 24]), f"def f{chain}_{at}(): pass", path=f"{chain}/f{at}.py", source=f"s{at % 3}"
        )
        for chain in range(6)
        for at in range(chain * 30, chain * 30 + 2 * (chain + 3), 2)
    ]
    also_elsewhere = [replace(chunk, path=f"copy{n}.py") for n, chunk in enumerate(chains[::4])]
    add_chunks(conn, chains + also_elsewhere)
    conn.execute("UPDATE pgembed.mining_settings SET value = 0.3 WHERE name IN ('train_share', 'validation_share')")
    mine(conn)
    rules = Rules(chains + also_elsewhere, settings_of(conn))
    splits = dict(
        conn.execute(
            "SELECT c.sha256, p.split FROM pgembed.chunk_splits p JOIN pgembed.code_chunks c ON c.id = p.chunk_id"
        ).fetchall()
    )
    clusters = rules.clusters()
    assert max(len(cluster) for cluster in clusters) > 5
    assert all(len({splits[key] for key in cluster} - {None}) <= 1 for cluster in clusters)
    of_files = [{rules.split_of_file(c.source, c.path) for c in chains if c.sha256 in cluster} for cluster in clusters]
    assert any(len(split) > 1 for split in of_files), (
        "a cluster whose files are in two splits, or nothing was to be done"
    )
    assert {split for split in splits.values() if split} > {"train"}


def test_sample_and_counts(conn: psycopg.Connection, mined: dict[int, Chunk]) -> None:
    shown = sample(conn, kind="docstring", split="train", language="python", limit=5)
    assert len(shown) == 5
    assert {(t.kind, t.split, t.language) for t in shown} == {("docstring", "train", "python")}
    assert [t.ordinal for t in shown] == sorted(t.ordinal for t in shown)
    assert {count.split for count in counts(conn)} == {"train", "validation", "test"}


def test_code_that_was_not_compared_is_in_no_split(conn: psycopg.Connection, mined: dict[int, Chunk]) -> None:
    copy = replace(next(iter(mined.values())), body="def copied(): pass", path="copy.py")
    ids = add_chunks(conn, [copy])
    refresh_triplets(conn)
    placed = "SELECT split, reason FROM pgembed.chunk_splits WHERE chunk_id = %s"
    split, reason = conn.execute(placed, (ids[copy.sha256],)).fetchone() or ()
    assert split is None
    assert "pgembed pairs" in reason
    mine(conn)
    assert "pgembed pairs" not in str(conn.execute(placed, (ids[copy.sha256],)).fetchone())


def _add_a_chunk(conn: psycopg.Connection) -> None:
    add_chunks(conn, [Chunk(frozenset({"new"}), "def new(): pass")])


def _delete_a_chunk(conn: psycopg.Connection) -> None:
    conn.execute("DELETE FROM pgembed.code_chunks WHERE id = (SELECT min(anchor_id) FROM pgembed.triplets)")


def _move_a_file(conn: psycopg.Connection) -> None:
    conn.execute("ALTER TABLE pgembed.chunk_locations DROP CONSTRAINT chunk_locations_source_id_path_fkey")
    conn.execute("UPDATE pgembed.chunk_locations SET path = 'moved.py' WHERE path = 'dir1/file1.py'")


def _find_all_pairs_again(conn: psycopg.Connection) -> None:
    find_pairs(conn, min_jaccard=0.4, full=True)


@pytest.mark.parametrize(
    ("change", "inputs"),
    [
        (_add_a_chunk, {"chunks", "places"}),
        (_delete_a_chunk, {"chunks", "places"}),
        (_move_a_file, {"places"}),
        (_find_all_pairs_again, {"pairs"}),
        ("UPDATE pgembed.sources SET name = 'there'", {"sources"}),
        ("UPDATE pgembed.mining_settings SET value = 2 WHERE name = 'length_ratio'", {"settings"}),
        ("UPDATE pgembed.mining_exclusions SET enabled = false WHERE name = 'stubs'", {"exclusions"}),
        ("INSERT INTO pgembed.mining_exclusions VALUES ('a', 'path', '^x', 'y')", {"exclusions"}),
        ("SELECT pgembed.block_triplet(1, 'bad')", {"blocks"}),
        ("SELECT pgembed.block_chunk((SELECT min(id) FROM pgembed.code_chunks), 'bad')", {"blocks"}),
    ],
)
def test_triplets_are_stale_when_what_they_follow_from_has_changed_and_only_then(
    conn: psycopg.Connection,
    mined: dict[int, Chunk],
    change: str | Callable[[psycopg.Connection], None],
    inputs: set[str],
) -> None:
    assert not are_stale(conn)
    find_pairs(conn, min_jaccard=0.4)  # nothing new
    conn.execute("UPDATE pgembed.mining_settings SET value = value")
    assert stale_inputs(conn) == []
    if isinstance(change, str):
        conn.execute(change)
    else:
        change(conn)
    assert set(stale_inputs(conn)) == inputs
    assert are_stale(conn)
    mine(conn)
    assert not are_stale(conn)


def test_an_empty_database_is_not_stale_and_new_code_in_it_is(conn: psycopg.Connection) -> None:
    assert not are_stale(conn)
    _add_a_chunk(conn)
    assert are_stale(conn)


def test_two_refreshes_at_once_come_one_after_the_other(
    conn: psycopg.Connection, database_url: str, mined: dict[int, Chunk]
) -> None:
    before = stored(conn)
    with psycopg.connect(database_url) as first, psycopg.connect(database_url) as second:
        first.execute("SELECT pgembed.refresh_triplets()")
        second.execute("SET lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            second.execute("SELECT pgembed.refresh_triplets()")
        second.rollback()
        first.commit()
        second.execute("SELECT pgembed.refresh_triplets()")
    assert stored(conn) == before


@pytest.fixture
def many(conn: psycopg.Connection) -> int:
    """Some 2,000 triplets, many marks of other code, and statistics as autovacuum makes them; how many triplets."""
    add_chunks(conn, corpus(count=1300))
    conn.execute(
        """INSERT INTO pgembed.chunk_blocks (sha256, reason)
           SELECT sha256(i::text::bytea), 'other code' FROM generate_series(1, 3000) AS i"""
    )
    conn.execute(
        """INSERT INTO pgembed.triplet_blocks (kind, anchor, positive, negative, reason)
           SELECT 'code', sha256, sha256, sha256, 'other code' FROM pgembed.chunk_blocks"""
    )
    mine(conn)
    conn.execute("ANALYZE")
    return len(stored(conn))


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM pgembed.triplets LIMIT 100",
        "SELECT * FROM pgembed.triplets ORDER BY ordinal LIMIT 100",
        "DECLARE reading CURSOR FOR SELECT * FROM pgembed.triplets ORDER BY ordinal",
        "DECLARE reading CURSOR FOR SELECT * FROM pgembed.triplets_docstring WHERE split = 'train' ORDER BY ordinal",
    ],
)
def test_the_first_rows_come_through_indexes(conn: psycopg.Connection, many: int, statement: str) -> None:
    """A plan that sorts or hashes everything would make the first row wait for all."""
    assert many > 1800
    plan = [line for (line,) in conn.execute(f"EXPLAIN {statement}")]
    nodes = [line.split("->")[-1].strip() for line in plan if "cost=" in line]
    assert [
        node for node in nodes if node.startswith(("Sort", "Incremental Sort", "Hash", "Materialize", "Bitmap"))
    ] == []
    read_in_full = [node for node in nodes if node.startswith("Seq Scan")]
    if "ORDER BY" in statement:
        assert read_in_full == []
        in_order = ("Index Scan using triplet_candidates_pkey", "Index Scan using triplet_candidates_kind_idx")
        assert [node for node in nodes if node.startswith(in_order)]
    else:
        assert [n for n in read_in_full if " on triplet_candidates " not in n] == []
    assert sum("Index Scan using code_chunks_pkey" in node for node in nodes) == 3


def test_a_hundred_rows_are_read_for_a_hundred(conn: psycopg.Connection, many: int) -> None:
    plan = [
        line for (line,) in conn.execute("EXPLAIN ANALYZE SELECT * FROM pgembed.triplets ORDER BY ordinal LIMIT 100")
    ]
    [read] = [line for line in plan if " on triplet_candidates " in line]
    assert "rows=100" in read.split("actual")[1]
