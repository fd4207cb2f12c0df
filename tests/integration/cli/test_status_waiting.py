"""`pgembed status`: what there is, and what waits for a command."""

import psycopg
from fixtures_chunks import Chunk, add_chunks
from fixtures_status import assert_shape, line, shown, status, waits
from fixtures_triplets import corpus
from fixtures_vectors import MadeUpEncoder, add_code, numbered_texts

from pgembed.corpus.lexicon import complete_lexicon
from pgembed.db.sql import query
from pgembed.mining.pairs import find_pairs
from pgembed.mining.triplets import refresh_triplets
from pgembed.vectors.reindex import reindex_with


def test_nothing_waits_in_an_empty_database(database_url: str) -> None:
    found = status(database_url)
    assert_shape(found)
    assert found["lag"] == found["leases"] == found["errors"] == found["triplets"]["counts"] == []
    assert (found["pairs"], found["triplets"]["made_at"]) == ({"unprepared": 0, "queued": 0, "run": None}, None)
    assert "Waiting" not in shown(database_url)


def test_triplets_by_kind_and_split_and_what_they_are_older_than(conn: psycopg.Connection, database_url: str) -> None:
    add_chunks(conn, corpus(count=80))
    find_pairs(conn, min_jaccard=0.4)
    refresh_triplets(conn)
    wanted: dict[tuple[str, str], int] = {}
    for kind, split in conn.execute("SELECT kind, split FROM pgembed.triplets").fetchall():
        wanted[kind, split] = wanted.get((kind, split), 0) + 1
    assert len(wanted) > 2
    triplets = status(database_url)["triplets"]
    assert {(row["kind"], row["split"]): row["triplets"] for row in triplets["counts"]} == wanted
    assert (triplets["total"], triplets["stale"]) == (sum(wanted.values()), [])
    assert f"{wanted['docstring', 'train']:,} train" in line(
        shown(database_url), f"{triplets['total']:,} triplets, made"
    )

    conn.execute("UPDATE pgembed.mining_settings SET value = 7 WHERE name = 'seed'")
    found = status(database_url)
    assert found["triplets"]["stale"] == ["settings"]
    assert waits(found, "triplets")[0]["command"] == "pgembed triplets --refresh"
    assert "the triplets are older than settings: pgembed triplets --refresh" in shown(database_url)


def test_chunks_that_wait_for_pairs(conn: psycopg.Connection, database_url: str) -> None:
    add_chunks(conn, [Chunk(frozenset({f"a{n}", "b", "c"}), body=f"f{n}") for n in range(5)])
    add_chunks(conn, [Chunk(frozenset(), body="no tokens")])
    found = status(database_url)
    assert (found["pairs"], waits(found, "pairs")[0]["items"]) == ({"unprepared": 5, "queued": 0, "run": None}, 5)
    assert "Waiting: 5 chunks wait to be compared: pgembed pairs" in shown(database_url)

    find_pairs(conn)
    found = status(database_url)
    assert (found["pairs"]["unprepared"], found["pairs"]["run"]["state"], waits(found, "pairs")) == (0, "finished", [])

    add_chunks(conn, [Chunk(frozenset({"x", "y"}), body="later")])
    conn.execute(query("rank_tokens"))
    conn.execute(query("prepare_sets"), {"thousandths": 500, "first": 0, "last": 2**62, "queued": True})
    found = status(database_url)
    assert (found["pairs"]["queued"], waits(found, "pairs")[0]["items"]) == (1, 1)
    assert "1 chunks wait to be compared (1 of them in the queue): pgembed pairs" in shown(database_url)


def test_an_unfinished_run_of_pairs_and_whether_somebody_is_at_work(
    conn: psycopg.Connection, database_url: str, other: psycopg.Connection
) -> None:
    conn.execute(
        "INSERT INTO pgembed.pair_runs (mode, state, min_jaccard, min_tokens) VALUES ('full', 'joining', 0.5, 0)"
    )
    conn.execute(
        """INSERT INTO pgembed.pair_slices (run_id, ordinal, low_n, low_id, high_n, high_id, sets, pairs)
           SELECT r.id, n, 0, 0, 0, 0, 1000 * n, CASE WHEN n < 3 THEN 7 END
             FROM pgembed.pair_runs r, generate_series(1, 3) n"""
    )
    run = status(database_url)["pairs"]["run"]
    told = {name: run[name] for name in ("slices", "slices_done", "chunks", "chunks_done", "at_work")}
    assert told == {"slices": 3, "slices_done": 2, "chunks": 6000, "chunks_done": 3000, "at_work": False}
    told_so = "3,000 of 6,000 chunks compared, in 2 of 3 slices; "
    assert line(shown(database_url), "Pairs: run").endswith(
        told_so + "nobody is at work: `pgembed pairs` goes on with it"
    )

    other.execute(query("pairs_try_lock"))
    found = status(database_url)
    (lease,) = found["leases"]
    assert (lease["what"], lease["pid"], lease["waiting"]) == ("pairs", other.info.backend_pid, False)
    assert (found["pairs"]["run"]["at_work"], waits(found, "pairs")[0]["at_work"]) == (True, True)
    assert line(shown(database_url), "Pairs: run").endswith(told_so + "at work")


def test_chunks_that_are_not_found_by_their_words(conn: psycopg.Connection, database_url: str) -> None:
    add_chunks(conn, [Chunk(frozenset({"a"}), body=f"f{n}", docstring="Words.") for n in range(3)])
    assert waits(status(database_url), "words")[0]["items"] == 3
    with conn.transaction():
        complete_lexicon(conn)
    assert waits(status(database_url), "words") == []
    conn.execute("UPDATE pgembed.lexical_documents SET described = false WHERE chunk_id = 1")
    assert "1 chunks are not found by their words yet: pgembed ingest PATH" in shown(database_url)


def test_chunks_without_a_vector_but_for_those_that_can_have_none(
    conn: psycopg.Connection, database_url: str, encoder: MadeUpEncoder
) -> None:
    add_code(conn, numbered_texts(20))
    found = status(database_url)
    assert [(row["items"], row["command"]) for row in waits(found, "vectors")] == [(20, "pgembed reindex --activate")]

    encoder.bad = {"never": float("nan")}
    add_code(conn, ["never embedded"])
    reindex_with(database_url, encoder)
    found = status(database_url)
    assert waits(found, "vectors") == []
    assert waits(found, "activation")[0]["command"] == "pgembed generations activate 1"
    assert "generation 1 is ready, and none is active: pgembed generations activate 1" in shown(database_url)

    reindex_with(database_url, encoder, activate=True)
    found = status(database_url)
    (generation,) = found["generations"]
    assert (generation["chunks"], generation["vectors"], generation["rejected"], generation["missing"]) == (
        21,
        20,
        1,
        0,
    )
    assert waits(found, "vectors") == waits(found, "activation") == []

    add_code(conn, ["come later", "come last"])
    conn.execute("DELETE FROM pgembed.code_chunks WHERE content IN ('topic0 code 0', 'topic1 code 1', 'topic2 code 2')")
    found = status(database_url)
    (row,) = waits(found, "vectors")
    assert (row["items"], row["generation_id"], row["command"], row["at_work"]) == (2, 1, "pgembed reindex", False)
    assert found["generations"][0]["vectors"] == 17
    assert "2 chunks have no vector in generation 1: pgembed reindex" in shown(database_url)
