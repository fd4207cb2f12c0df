"""Why is this triplet here, and why does this chunk give none? In words, against what the test knows of the chunks."""

from collections.abc import Callable
from dataclasses import replace

import psycopg
import pytest
from fixtures_chunks import Chunk, add_chunks
from fixtures_triplets import WORDS, Rules, Vectors, corpus, jaccard, mine, rows, settings_of

from pgembed.mining.triplets import refresh_triplets


def explain(conn: psycopg.Connection, ordinal: object) -> dict[str, str]:
    found = conn.execute("SELECT aspect, detail FROM pgembed.explain_triplet(%s)", (ordinal,)).fetchall()
    assert len(dict(found)) == len(found)
    return dict(found)


def why_not(conn: psycopg.Connection, chunk_id: int) -> dict[str, str]:
    return dict(conn.execute("SELECT kind, reason FROM pgembed.why_no_triplets(%s)", (chunk_id,)).fetchall())


@pytest.fixture
def mined(conn: psycopg.Connection) -> dict[int, Chunk]:
    """The corpus, mined, with document frequencies and a qualified name at each place; its chunks by id."""
    chunks = corpus()
    ids = add_chunks(conn, chunks)
    conn.execute("UPDATE pgembed.tokens SET document_frequency = 1000 - id")
    conn.execute("UPDATE pgembed.chunk_locations SET symbol = 'Class.f' || chunk_id")
    mine(conn)
    return {ids[chunk.sha256]: chunk for chunk in reversed(chunks)}


def rarest(conn: psycopg.Connection, tokens: frozenset[str], most: int = 5) -> str:
    frequency = dict(conn.execute("SELECT token, document_frequency FROM pgembed.tokens").fetchall())
    return ", ".join(sorted(tokens, key=lambda token: (frequency[token], token))[:most])


def shared(conn: psycopg.Connection, a: Chunk, b: Chunk) -> str:
    common = a.tokens & b.tokens
    text = f"{len(common)} of {len(a.tokens | b.tokens)} tokens, Jaccard {jaccard(a, b):.3f}"
    return f"{text}; the rarest: {rarest(conn, common)}" if common else text


def test_every_triplet_is_explained(conn: psycopg.Connection, mined: dict[int, Chunk]) -> None:
    rules = Rules(corpus(), settings_of(conn))
    copies: dict[bytes, int] = {}
    for place in corpus():
        copies[place.sha256] = copies.get(place.sha256, 0) + 1
    found = rows(conn)
    by_rule = {row["rule"]: row for row in found}
    assert len(by_rule) == 4
    for row in [*by_rule.values(), *found[:20]]:
        said = explain(conn, row["ordinal"])
        anchor, positive, negative = (mined[int(str(row[f"{role}_id"]))] for role in ("anchor", "positive", "negative"))
        assert said["rule"].startswith(f"{row['rule']}: ")
        for role, chunk in (("anchor", anchor), ("negative", negative)):
            if copies[chunk.sha256] == 1:
                place = f"{chunk.source}/{chunk.path}:{chunk.line}-{chunk.line + chunk.lines - 1} Class.f"
                assert place in said[role]
            else:
                assert "(and 1 more places)" in said[role]
            assert f"{chunk.path} is in {row['split']} (its hash is 0." in said[f"split of the {role}"]
            assert said[f"split of the {role}"].startswith(f"{row['split']}: ")
            near = sum(value >= 0.8 for value in rules.similarity[chunk.sha256].values())
            assert (f"{near} near-duplicates" if near else "no near-duplicates") in said[f"split of the {role}"]
        assert said["positive and negative share"] == shared(conn, positive, negative)
        assert said["Jaccard"] == f"positive {row['positive_jaccard']:.3f}, negative {row['negative_jaccard']:.3f}"
        lengths = (
            f"anchor {len(anchor.tokens)}, positive {len(positive.tokens)}, negative {len(negative.tokens)} tokens"
        )
        assert said["length"] == lengths
        assert "length_ratio = 2.5" in said["settings"]
        assert "near_duplicate = 0.8" in said["settings"]
        assert said["scores"] == "no vectors were asked"
        assert "from pairs at Jaccard 0.4 and above" in said["made"]
        assert "out of date" not in said
        if row["kind"] == "code":
            assert said["anchor and positive share"] == shared(conn, anchor, positive)
            assert said["anchor and negative share"] == shared(conn, anchor, negative)
            assert "code_negative_max = 0.2" in said["settings"]
        else:
            assert said["anchor text"] == row["anchor"]
            assert "docstring_negatives = 2" in said["settings"]


def test_the_settings_are_those_it_was_made_with(conn: psycopg.Connection, mined: dict[int, Chunk]) -> None:
    conn.execute("UPDATE pgembed.mining_settings SET value = 3 WHERE name = 'length_ratio'")
    said = explain(conn, 1)
    assert "length_ratio = 2.5" in said["settings"]
    assert said["out of date"] == "changed since: settings; pgembed triplets --refresh"
    refresh_triplets(conn)
    assert "length_ratio = 3" in explain(conn, 1)["settings"]


def test_scores_and_marks_are_explained(conn: psycopg.Connection, vectors: Vectors) -> None:
    mine(conn)
    refresh_triplets(conn, by_vectors=True)
    for kind in ("docstring", "code"):
        row = next(row for row in rows(conn) if row["kind"] == kind and row["negative_score"] is not None)
        said = explain(conn, row["ordinal"])
        assert said["scores"].startswith(f"generation {row['generation_id']}: ")
        assert f"{row['negative_score']:.4f}" in said["scores"]
        assert ("false_negative_ceiling = 0.85" if kind == "docstring" else "false_negative_margin = 0.05") in said[
            "scores"
        ]
        conn.execute("SELECT pgembed.block_triplet(%s, 'both are right')", (row["ordinal"],))
        assert explain(conn, row["ordinal"])["left out"] == "a person has blocked it: both are right"


def test_the_way_to_be_rid_of_it_works_as_printed(conn: psycopg.Connection, mined: dict[int, Chunk]) -> None:
    statement = explain(conn, 7)["to be rid of it"].split(", or ")[0]
    conn.execute(statement.encode())
    assert 7 not in {row["ordinal"] for row in rows(conn)}


def test_what_is_not_there_cannot_be_explained(conn: psycopg.Connection) -> None:
    for function in ("explain_triplet", "why_no_triplets"):
        with pytest.raises(psycopg.errors.NoDataFound, match="there is no"):
            conn.execute(f"SELECT * FROM pgembed.{function}(4711)")


LONG = "Say at some length what it does."
PLAIN = Chunk(frozenset(WORDS[:9]), "def plain(): pass", docstring=LONG)


@pytest.mark.parametrize(
    ("chunk", "docstring", "code"),
    [
        (replace(PLAIN, kind="class"), "it is a class: only functions", "it is a class: only functions"),
        (replace(PLAIN, tokens=frozenset(WORDS[:3])), "too few tokens: fewer than min_tokens = 5", "too few tokens"),
        (replace(PLAIN, tokens=frozenset()), "it has no tokens", "it has no tokens"),
        (replace(PLAIN, tokens=frozenset(f"t{n}" for n in range(401))), "too many tokens", "max_tokens = 400"),
        (replace(PLAIN, lines=1), "too few lines", "min_lines = 2"),
        (replace(PLAIN, lines=301), "too many lines", "max_lines = 300"),
        (
            replace(PLAIN, path="tests/test_a.py"),
            "excluded by the rule tests on its path: test code repeats itself, and nobody searches for it",
            "excluded by the rule tests",
        ),
        (
            replace(PLAIN, body="def f(): raise NotImplementedError"),
            "excluded by the rule stubs on its body: a stub holds nothing to find",
            "excluded by the rule stubs",
        ),
        (replace(PLAIN, docstring=None), "it has no docstring", "no look-alike"),
        (replace(PLAIN, docstring="  \n "), "it has no docstring", "no look-alike"),
        (
            replace(PLAIN, docstring="Too short.\n\nBut more words follow here."),
            "min_docstring_words = 4",
            "no look-alike",
        ),
        (
            replace(PLAIN, docstring="See the other function for this."),
            "its docstring is excluded by the rule references: it refers to another description",
            "no look-alike",
        ),
        (replace(PLAIN, language="cobol"), "its split (train) holds only 0 other functions in cobol", "no look-alike"),
    ],
)
def test_a_chunk_that_gives_none_is_told_why(conn: psycopg.Connection, chunk: Chunk, docstring: str, code: str) -> None:
    ids = add_chunks(conn, [*corpus(count=60), chunk])
    conn.execute("UPDATE pgembed.mining_settings SET value = 1 WHERE name = 'train_share'")
    mine(conn)
    said = why_not(conn, ids[chunk.sha256])
    assert said.keys() == {"docstring", "code"}
    assert docstring in said["docstring"]
    assert code in said["code"]


def test_splits_marks_and_age_are_told(conn: psycopg.Connection, mined: dict[int, Chunk]) -> None:
    nowhere = {
        reason: chunk_id
        for chunk_id, reason in conn.execute("SELECT chunk_id, reason FROM pgembed.chunk_splits WHERE split IS NULL")
    }
    assert "it stands in files of several splits" in nowhere
    for reason, chunk_id in nowhere.items():
        assert why_not(conn, chunk_id)["docstring"] == f"it is in no split: {reason}"
    row = rows(conn, "triplets_docstring")[0]
    anchor = int(str(row["anchor_id"]))
    ordinals = [r["ordinal"] for r in rows(conn, "triplets_docstring") if r["anchor_id"] == anchor]
    assert why_not(conn, anchor)["docstring"] == f"it gives {len(ordinals)}: {', '.join(map(str, ordinals))}"
    conn.execute("SELECT pgembed.block_chunk(%s, 'it is wrong')", (anchor,))
    said = why_not(conn, anchor)
    assert said["docstring"] == "blocked by a person: it is wrong"
    assert "changed since: blocks" in said["both"]
    new = Chunk(frozenset(WORDS[:9]), "def new(): pass")
    ids = add_chunks(conn, [new])
    assert why_not(conn, ids[new.sha256])["code"] == "it came after the triplets were made"


def _near(first: int, count: int, **changes: object) -> Chunk:
    values = {"tokens": frozenset(WORDS[first : first + count]), "body": f"def f{first}(): pass", **changes}
    return Chunk(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("others", "values", "docstring", "code"),
    [
        # 18 of 22 in common: a copy
        (
            [_near(2, 20)],
            {},
            "holds only 1 other",
            "no look-alike: no chunk pairs with it below near_duplicate = 0.8 (1",
        ),
        # 13 of 27: 0.481
        ([_near(7, 20)], {}, "it gives 1", "the nearest has Jaccard 0.481, below code_positive_min = 0.5"),
        (
            [_near(4, 20, language="go")],
            {},
            "holds only 0 other functions in python",
            "no look-alike can be a positive",
        ),
        ([_near(4, 20)], {}, "it gives 1", "no negative was found: whatever was tried shares too much"),
        ([_near(4, 20)], {"docstring_negatives": 0}, "docstring_negatives is 0", "no negative"),
        ([_near(4, 20)], {"code_positives": 0}, "it gives 1", "code_positives is 0"),
        (
            [_near(30 + 3 * n, 3, kind="function") for n in range(25)],
            {},
            "no negative was found: whatever was tried",
            "no look-alike: no chunk pairs",
        ),
    ],
)
def test_what_was_missing_is_told(
    conn: psycopg.Connection, others: list[Chunk], values: dict[str, float], docstring: str, code: str
) -> None:
    chunk = _near(0, 20, docstring=LONG)
    ids = add_chunks(conn, [chunk, *others])
    for name, value in {"train_share": 1, **values}.items():
        conn.execute("UPDATE pgembed.mining_settings SET value = %s WHERE name = %s", (value, name))
    mine(conn)
    said = why_not(conn, ids[chunk.sha256])
    assert docstring in said["docstring"]
    assert code in said["code"]


def test_every_chunk_is_told_and_what_is_told_is_true(conn: psycopg.Connection, mined: dict[int, Chunk]) -> None:
    """Whoever has no refusal is eligible, and the other way round; whoever is said to give triplets gives them."""
    eligible = Rules(corpus(), settings_of(conn)).eligible
    refused = dict(conn.execute("SELECT chunk_id, refused FROM pgembed.chunk_eligibility").fetchall())
    assert {mined[chunk_id].sha256 for chunk_id, reason in refused.items() if reason is None} == eligible
    for kind in ("docstring", "code"):
        giving = {row["anchor_id"] for row in rows(conn, f"triplets_{kind}")}
        said = {chunk_id for chunk_id in mined if why_not(conn, chunk_id)[kind].startswith("it gives ")}
        assert giving == said


def test_an_answer_does_not_read_whole_tables(conn: psycopg.Connection, count: Callable[[], dict[str, int]]) -> None:
    """Its cost must not grow with the corpus: of every table that grows, few rows are read."""
    add_chunks(conn, corpus(count=1300))
    conn.execute("INSERT INTO pgembed.tokens (token) SELECT 'other' || i FROM generate_series(1, 5000) AS i")
    mine(conn)
    conn.execute("ANALYZE")
    first, last = conn.execute("SELECT min(id), max(id) FROM pgembed.code_chunks").fetchone() or ()
    for function in ("explain_triplet(1)", f"why_no_triplets({first})", f"why_no_triplets({last})"):
        before = count()
        conn.execute(f"SELECT * FROM pgembed.{function}")
        read = {table: rows_read - before[table] for table, rows_read in count().items()}
        assert read["code_chunks"] > 0
        assert {table: n for table, n in read.items() if n > 150} == {}


@pytest.fixture
def count(conn: psycopg.Connection) -> Callable[[], dict[str, int]]:
    """A function that returns the rows read by scans of each table that grows with the corpus, so far."""

    def counted() -> dict[str, int]:
        conn.execute("SELECT pg_stat_force_next_flush()")
        conn.execute("SELECT pg_stat_clear_snapshot()")
        return dict(
            conn.execute(
                """SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables
                    WHERE relname IN ('code_chunks', 'chunk_locations', 'candidate_pairs', 'triplet_candidates',
                                      'chunk_splits', 'jaccard_sets', 'tokens')"""
            ).fetchall()
        )

    return counted
