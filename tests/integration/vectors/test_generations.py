"""Generations: which one answers, what may be activated, what may be dropped, and that no answer mixes two."""

import threading
from pathlib import Path

import psycopg
import pytest
from fixtures_vectors import MadeUpEncoder, add_code, assert_complete

from pgembed.db.connection import connect
from pgembed.errors import GenerationError, SearchError
from pgembed.vectors.filling import BrokenEncoderError
from pgembed.vectors.generations import (
    activate,
    active_id,
    change_state,
    get_generation,
    list_generations,
    previous_id,
    prune,
    rollback,
)
from pgembed.vectors.reindex import reindex_with
from pgembed.vectors.search import search


@pytest.fixture
def encoders(conn: psycopg.Connection, database_url: str, tmp_path: Path) -> list[MadeUpEncoder]:
    """Three encoders over 30 chunks, with the generations 1 (active), 2 and 3 (ready)."""
    add_code(conn, [f"topic{n % 3} code {n}" for n in range(30)])
    made = [MadeUpEncoder(tmp_path, f"encoder-{n}") for n in (1, 2, 3)]
    for number, encoder in enumerate(made, start=1):
        assert reindex_with(database_url, encoder, activate=number == 1).generation_id == number
    return made


def _states(conn: psycopg.Connection) -> dict[int, str]:
    return {generation.id: generation.state for generation in list_generations(conn)}


def _tables(conn: psycopg.Connection) -> list[str]:
    rows = conn.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'pgembed'::regnamespace AND relkind = 'r'"
        " AND relname LIKE 'code\\_embeddings\\_%%' ORDER BY 1"
    )
    return [str(row[0]) for row in rows]


def _fail(database_url: str, encoder: MadeUpEncoder) -> None:
    encoder.bad = {"code": 0.0}
    with pytest.raises(BrokenEncoderError):
        reindex_with(database_url, encoder)


def test_activating_moves_the_pointer_and_rolling_back_twice_comes_back(
    conn: psycopg.Connection, encoders: list[MadeUpEncoder]
) -> None:
    assert (active_id(conn), previous_id(conn)) == (1, None)
    with pytest.raises(GenerationError, match="no generation to go back to"):
        rollback(conn)
    activate(conn, 2)
    assert (active_id(conn), previous_id(conn)) == (2, 1)
    assert _states(conn) == {1: "retired", 2: "active", 3: "ready"}
    assert search(conn, encoders[1], "topic1 x")
    with pytest.raises(SearchError, match="is another one"):
        search(conn, encoders[0], "topic1 x")
    assert rollback(conn) == 1
    assert (active_id(conn), previous_id(conn), _states(conn)[2]) == (1, 2, "retired")
    assert rollback(conn) == 2
    assert (active_id(conn), previous_id(conn), _states(conn)[1]) == (2, 1, "retired")
    assert [generation.is_previous for generation in list_generations(conn)] == [True, False, False]
    activate(conn, 2)  # it is active: nothing changes
    assert (active_id(conn), previous_id(conn)) == (2, 1)
    for number, encoder in enumerate(encoders, start=1):
        assert_complete(conn, number, encoder)


def test_any_finished_generation_answers_who_names_it(conn: psycopg.Connection, encoders: list[MadeUpEncoder]) -> None:
    for number, encoder in enumerate(encoders, start=1):
        (hit,) = search(conn, encoder, "topic1 code 4", k=1, mode="vector", generation_id=number)
        assert (hit.content, round(hit.score, 5)) == ("topic1 code 4", 1)


def test_no_answer_mixes_two_generations_while_the_pointer_goes_back_and_forth(
    conn: psycopg.Connection, database_url: str, encoders: list[MadeUpEncoder]
) -> None:
    vector = encoders[0].vector("topic1 x")
    contents = conn.execute("SELECT id, content FROM pgembed.code_chunks").fetchall()
    whole = {
        number: {chunk_id: float(encoders[number - 1].vector(content) @ vector) for chunk_id, content in contents}
        for number in (1, 2)
    }
    activate(conn, 2)
    stop = threading.Event()

    def swap() -> None:
        with connect(database_url, access="session") as other:
            while not stop.is_set():
                rollback(other)

    swapping = threading.Thread(target=swap)
    swapping.start()
    seen = []
    try:
        for _ in range(300):
            rows = conn.execute("SELECT chunk_id, score FROM pgembed.search(%s, 30)", (vector,)).fetchall()
            assert len(rows) == 30
            seen += [number for number, scores in whole.items() if dict(rows) == pytest.approx(scores, abs=1e-6)]
    finally:
        stop.set()
        swapping.join()
    assert len(seen) == 300
    assert set(seen) == {1, 2}


def test_a_transaction_that_must_see_one_moment_keeps_its_generation(
    conn: psycopg.Connection, database_url: str, encoders: list[MadeUpEncoder]
) -> None:
    with connect(database_url, vectors=True) as other, other.transaction():
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        before = search(other, encoders[0], "topic1 x")
        activate(conn, 2)
        assert search(other, encoders[0], "topic1 x") == before
    assert active_id(conn) == 2


def test_missing_chunks_stand_against_activation_unless_forced_and_that_is_recorded(
    conn: psycopg.Connection, encoders: list[MadeUpEncoder]
) -> None:
    add_code(conn, ["one more", "and another"])
    with pytest.raises(GenerationError, match="2 chunks have no vector in it") as caught:
        activate(conn, 2)
    assert "--force" in str(caught.value)
    assert active_id(conn) == 1
    activate(conn, 2, force=True)
    assert active_id(conn) == 2
    assert get_generation(conn, 2).metrics["forced"]["despite"] == ["2 chunks have no vector in it"]
    assert "forced" not in get_generation(conn, 1).metrics


def test_rejected_chunks_do_not_stand_against_activation(
    conn: psycopg.Connection, database_url: str, encoders: list[MadeUpEncoder]
) -> None:
    add_code(conn, ["a nan", "a word"])
    encoders[1].bad = {"nan": float("nan")}
    assert reindex_with(database_url, encoders[1]).rejected == 1
    activate(conn, 2)
    assert [generation.rejected for generation in list_generations(conn)] == [0, 1, 0]


def test_a_missing_index_or_calibration_stands_against_activation(
    conn: psycopg.Connection, database_url: str, encoders: list[MadeUpEncoder]
) -> None:
    other = reindex_with(database_url, encoders[0], fresh=True, index_method="hnsw").generation_id
    conn.execute("DROP INDEX pgembed.code_embeddings_4_hnsw_idx")
    conn.execute("UPDATE pgembed.generations SET probes = NULL WHERE id = %s", (other,))
    with pytest.raises(GenerationError, match=r"hnsw_idx is missing or invalid\n.*never calibrated"):
        activate(conn, other)


def test_only_a_finished_generation_can_be_activated_even_by_force(
    conn: psycopg.Connection, database_url: str, encoders: list[MadeUpEncoder]
) -> None:
    broken = MadeUpEncoder(encoders[0].manifest.path.parent, "broken")
    _fail(database_url, broken)
    for force in (False, True):
        with pytest.raises(
            GenerationError, match=r"Generation 4 is failed \(BrokenEncoderError: .*\): only a ready one"
        ):
            activate(conn, 4, force)
    with pytest.raises(GenerationError, match="no generation 99"):
        activate(conn, 99)
    assert active_id(conn) == 1


def test_states_change_only_along_the_arrows(conn: psycopg.Connection, encoders: list[MadeUpEncoder]) -> None:
    with pytest.raises(GenerationError, match="Generation 2 is ready: it cannot become retired"):
        change_state(conn, 2, "retired")
    with pytest.raises(GenerationError, match="Generation 1 is active: it cannot become failed"):
        change_state(conn, 1, "failed")
    assert _states(conn) == {1: "active", 2: "ready", 3: "ready"}


def test_prune_keeps_the_active_the_previous_and_what_was_never_active(
    conn: psycopg.Connection, database_url: str, encoders: list[MadeUpEncoder]
) -> None:
    _fail(database_url, MadeUpEncoder(encoders[0].manifest.path.parent, "broken"))
    assert prune(conn) == [4]
    activate(conn, 2)
    activate(conn, 3)
    fourth = reindex_with(database_url, MadeUpEncoder(encoders[0].manifest.path.parent, "fourth")).generation_id
    assert _states(conn) == {1: "retired", 2: "retired", 3: "active", fourth: "ready"}
    assert prune(conn, 3) == []
    assert prune(conn, 2) == [1]
    assert _tables(conn) == ["code_embeddings_2", "code_embeddings_3", f"code_embeddings_{fourth}"]
    assert prune(conn, 1) == []  # the previous one stays
    assert prune(conn, 1, include_previous=True) == [2]
    assert _states(conn) == {3: "active", fourth: "ready"}
    with pytest.raises(GenerationError, match="no generation to go back to"):
        rollback(conn)
    assert_complete(conn, 3, encoders[2])
    assert search(conn, encoders[2], "topic1 x")


def test_prune_drops_what_is_named_and_refuses_what_is_protected_or_unknown(
    conn: psycopg.Connection, encoders: list[MadeUpEncoder]
) -> None:
    activate(conn, 2)
    with pytest.raises(GenerationError, match="2 is active and stays"):
        prune(conn, ids=[3, 2])
    with pytest.raises(GenerationError, match="1 is the one that rollback goes back to"):
        prune(conn, ids=[3, 1])
    with pytest.raises(GenerationError, match="no generation 77"):
        prune(conn, ids=[3, 77])
    with pytest.raises(GenerationError, match="2 is active and stays"):
        prune(conn, ids=[2], include_previous=True)
    assert _states(conn) == {1: "retired", 2: "active", 3: "ready"}
    assert prune(conn, ids=[3, 3]) == [3]
    assert prune(conn, ids=[1], include_previous=True) == [1]
    assert _tables(conn) == ["code_embeddings_2"]
    assert conn.execute("SELECT count(*) FROM pgembed.code_chunks").fetchone() == (30,)


def test_prune_drops_tables_that_no_generation_claims_and_no_others(
    conn: psycopg.Connection, encoders: list[MadeUpEncoder]
) -> None:
    conn.execute("CREATE TABLE pgembed.code_embeddings_41 (LIKE pgembed.code_embeddings)")
    conn.execute("CREATE TABLE pgembed.code_embeddings_mine (a int)")
    conn.execute("DELETE FROM pgembed.generations WHERE id = 3")  # its table is attached
    assert prune(conn) == []
    assert _tables(conn) == ["code_embeddings_1", "code_embeddings_2", "code_embeddings_mine"]


def test_a_generation_that_is_being_filled_is_not_dropped(
    conn: psycopg.Connection, database_url: str, encoders: list[MadeUpEncoder]
) -> None:
    fourth = MadeUpEncoder(encoders[0].manifest.path.parent, "fourth")
    refused: list[str] = []

    def try_to_prune() -> None:
        with pytest.raises(GenerationError, match="Another reindex is at work") as caught:
            prune(conn, ids=[4])
        refused.append(str(caught.value))
        assert prune(conn) == []

    fourth.during = try_to_prune
    assert reindex_with(database_url, fourth).state == "ready"
    assert refused
    assert_complete(conn, 4, fourth)


def test_searches_go_on_beside_a_prune_that_waits_for_a_reader_and_an_interrupted_one_is_finished(
    conn: psycopg.Connection, database_url: str, encoders: list[MadeUpEncoder]
) -> None:
    activate(conn, 2)
    activate(conn, 3)
    with connect(database_url, vectors=True) as other, other.transaction():
        before = search(other, encoders[0], "topic1 x", generation_id=1)
        conn.execute("SET statement_timeout = '500ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            prune(conn)
        conn.execute("RESET statement_timeout")
        assert len(before) == 10
        assert len(search(conn, encoders[2], "topic1 x")) == 10
    assert not get_generation(conn, 1).attached
    with pytest.raises(SearchError, match="Generation 1 cannot be searched"):
        search(conn, encoders[0], "topic1 x", generation_id=1)
    with pytest.raises(GenerationError):
        activate(conn, 1, force=True)
    assert prune(conn) == [1]
    assert _tables(conn) == ["code_embeddings_2", "code_embeddings_3"]


def test_rollback_to_a_generation_whose_removal_has_begun_is_refused(
    conn: psycopg.Connection, database_url: str, encoders: list[MadeUpEncoder]
) -> None:
    activate(conn, 2)
    with connect(database_url, vectors=True) as other, other.transaction():
        search(other, encoders[0], "topic1 x", generation_id=1)
        conn.execute("SET statement_timeout = '500ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            prune(conn, ids=[1], include_previous=True)
        conn.execute("RESET statement_timeout")
    with pytest.raises(GenerationError, match=r"Generation 1 .*cannot be gone back to"):
        rollback(conn)
    assert (active_id(conn), len(search(conn, encoders[1], "topic1 x"))) == (2, 10)


def test_the_list_tells_what_each_one_is(conn: psycopg.Connection, encoders: list[MadeUpEncoder]) -> None:
    found = list_generations(conn)
    assert [(g.id, g.encoder, g.state, g.row_count) for g in found] == [
        (1, "encoder-1", "active", 30), (2, "encoder-2", "ready", 30), (3, "encoder-3", "ready", 30),
    ]  # fmt: skip
    for generation in found:
        assert (generation.index_method, generation.lists, generation.probes) == ("ivfflat", 1, 1)
        assert generation.index_recall == 1.0
        assert generation.size_bytes is not None
        assert generation.size_bytes > 30 * 2560 * 4
        assert generation.indexed_at is not None
    assert [generation.activated_at is not None for generation in found] == [True, False, False]
