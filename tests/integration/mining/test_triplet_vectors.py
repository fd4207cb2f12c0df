"""Hard and false negatives by the vectors of the active generation: against NumPy, and the same in any order."""

import psycopg
import pytest
from fixtures_chunks import add_chunks
from fixtures_triplets import Rules, Vectors, activate_vectors, assert_same, corpus, mine, settings_of, stored
from fixtures_vectors import MadeUpEncoder
from typer.testing import CliRunner

from pgembed.cli.app import app
from pgembed.errors import MiningError
from pgembed.mining.triplets import refresh_triplets, stale_inputs


def change(conn: psycopg.Connection, **values: float) -> None:
    for name, value in values.items():
        conn.execute("UPDATE pgembed.mining_settings SET value = %s WHERE name = %s", (value, name))


def test_negatives_are_the_hardest_that_are_not_false(conn: psycopg.Connection, vectors: Vectors) -> None:
    change(conn, false_negative_ceiling=0.6, false_negative_margin=0.2)
    mine(conn)
    without = stored(conn)
    refresh_triplets(conn, by_vectors=True)
    found = stored(conn)
    assert_same(found, Rules(corpus(), settings_of(conn), vectors).triplets())
    # and the rules had something to do
    docstring = [row for row in found if row.kind == "docstring"]
    scores = Rules(corpus(), settings_of(conn), vectors)
    assert {row.rule for row in docstring} >= {"docstring / near in meaning", "docstring / same file"}
    assert any((scores.score(row.anchor, row.negative) or 0) > 0.6 for row in without if row.kind == "docstring")
    assert max(row.negative_score or 0 for row in docstring) <= 0.6
    assert all(row.positive_score == 1 for row in docstring)
    before = {(row.anchor, row.positive): row.negative for row in without if row.kind == "code"}
    code = [row for row in found if row.kind == "code"]
    assert all(
        row.negative_score <= row.positive_score - 0.2 * abs(row.positive_score) + 1e-6
        for row in code
        if row.negative_score is not None and row.positive_score is not None
    )
    assert any(before[row.anchor, row.positive] != row.negative for row in code)
    mean = [sum(scores.score(row.anchor, row.negative) or 0 for row in r) / len(r) for r in (docstring, without)]
    assert mean[0] > mean[1] + 0.1


def test_a_chunk_without_a_vector_is_judged_by_jaccard(
    conn: psycopg.Connection, vectors: Vectors, encoder: MadeUpEncoder
) -> None:
    gone = [key for key in sorted(vectors) if key[0] < 90]
    conn.execute(
        "DELETE FROM pgembed.code_embeddings v USING pgembed.code_chunks c"
        " WHERE c.id = v.chunk_id AND c.sha256 = ANY (%s)",
        (gone,),
    )
    find = {key: vector for key, vector in vectors.items() if key not in gone}
    change(conn, use_vectors=1, false_negative_ceiling=0.5)
    mine(conn)
    found = stored(conn)
    assert_same(found, Rules(corpus(), settings_of(conn), find).triplets())
    assert {row.anchor for row in found if row.negative_score is None} >= {row.anchor for row in found} & set(gone)
    unscored = conn.execute(
        "SELECT count(*) FROM pgembed.triplets"
        " WHERE num_nulls(positive_score, negative_score) = 2 AND generation_id IS NOT NULL"
    ).fetchone()
    assert unscored == (0,)


def test_another_order_of_insertion_gives_the_same(
    conn: psycopg.Connection, database_url: str, vectors: Vectors, encoder: MadeUpEncoder
) -> None:
    change(conn, use_vectors=1, false_negative_ceiling=0.6)
    mine(conn)
    first = stored(conn)
    generations = {generation for (generation,) in conn.execute("SELECT generation_id FROM pgembed.triplets")}
    assert len(generations) == 1
    refresh_triplets(conn)
    assert stored(conn) == first
    conn.execute("TRUNCATE pgembed.code_chunks, pgembed.sources, pgembed.tokens, pgembed.jaccard_ranks CASCADE")
    add_chunks(conn, corpus()[::-1])
    activate_vectors(conn, database_url, encoder)
    mine(conn)
    assert stored(conn) == first


def test_the_command_asks_the_vectors_tells_the_cost_and_remembers(
    conn: psycopg.Connection, database_url: str, vectors: Vectors
) -> None:
    mine(conn)
    plain = stored(conn)

    def triplets(*options: str) -> str:
        done = CliRunner().invoke(app, ["triplets", "--dsn", database_url, *options])
        assert done.exit_code == 0, done.output
        return done.output

    said = triplets("--refresh", "--by-vectors")
    eligible = len(Rules(corpus(), settings_of(conn)).eligible)
    assert f"{eligible} vectors of {eligible} chunks read" in said
    assert "false negatives dropped" in said
    by_vectors = stored(conn)
    assert by_vectors != plain
    assert settings_of(conn)["use_vectors"] == 1
    change(conn, seed=1)
    triplets("--refresh")
    change(conn, seed=0)
    triplets("--refresh")
    assert stored(conn) == by_vectors
    assert "vectors" not in triplets("--refresh", "--no-by-vectors").split("docstring /")[0]
    assert stored(conn) == plain
    assert CliRunner().invoke(app, ["triplets", "--by-vectors", "--dsn", database_url]).exit_code == 2


def test_another_generation_makes_them_stale_only_where_vectors_are_asked(
    conn: psycopg.Connection, database_url: str, vectors: Vectors, encoder: MadeUpEncoder
) -> None:
    mine(conn)
    other = MadeUpEncoder(encoder.manifest.path.parent, "another")
    activate_vectors(conn, database_url, other)
    assert stale_inputs(conn) == []
    refresh_triplets(conn, by_vectors=True)
    assert stale_inputs(conn) == []
    activate_vectors(conn, database_url, encoder)
    assert stale_inputs(conn) == ["generation"]


def test_no_active_generation_is_a_clear_error_that_changes_nothing(conn: psycopg.Connection) -> None:
    add_chunks(conn, corpus(count=60))
    mine(conn)
    before = stored(conn)
    with pytest.raises(MiningError, match="no generation is active") as caught:
        refresh_triplets(conn, by_vectors=True)
    assert "pgembed reindex --activate" in str(caught.value)
    assert "--no-by-vectors" in str(caught.value)
    assert stored(conn) == before
    assert settings_of(conn)["use_vectors"] == 0
    refresh_triplets(conn)
