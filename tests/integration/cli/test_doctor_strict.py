"""`pgembed doctor --strict`: each invariant, broken by hand, is named; unbroken, none is."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from fixtures_cli import pgembed
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgembed.cli.invariants import INVARIANTS, OF_A_GENERATION, TOKENS, WORDS, violations
from pgembed.cli.kept_files import broken_files
from pgembed.corpus.ingest import ingest
from pgembed.db.connection import connect
from pgembed.db.embedded import ROLE, EmbeddedServer
from pgembed.db.migrations import upgrade
from pgembed.mining.pairs import find_pairs
from pgembed.mining.triplets import refresh_triplets
from pgembed.training.export import export_encoder
from pgembed.training.loop import train
from pgembed.training.options import TrainingOptions
from pgembed.vectors.reindex import reindex

_MODULES = ("textwrap.py", "heapq.py", "bisect.py", "queue.py", "gzip.py", "bz2.py", "lzma.py", "calendar.py")
_DATABASE = "everything"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("strict")
        patch.setenv("PGEMBED_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def dsn(embedded_server: EmbeddedServer, home: Path, tiny_model: Path, tiny_encoder: Path) -> Iterator[str]:
    """A database that has gone the whole path: generation 1 is retired, 2 is active, 3 is ready."""
    dsn = make_conninfo(host=str(embedded_server.socket_dir), user=ROLE, dbname=_DATABASE)
    admin = make_conninfo(dsn, dbname="postgres")
    with psycopg.connect(admin, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_DATABASE)))
    upgrade(dsn)
    library = Path(sysconfig.get_paths()["stdlib"])
    (home / "code").mkdir()
    for module in _MODULES:
        shutil.copy2(library / module, home / "code")
    with connect(dsn) as conn:
        ingest(conn, home / "code")
        find_pairs(conn, min_jaccard=0.3)
        refresh_triplets(conn)
        options = TrainingOptions(
            steps=4, batch=4, checkpoint_every=2, max_tokens=32, precision="fp32", evaluate_every=0
        )
        run = train(conn, options, base=tiny_model)
    tuned = export_encoder(run.checkpoint, home / "models" / "tuned").path
    # a copy, which a test may break
    plain = shutil.copytree(tiny_encoder, home / "models" / "plain")
    reindex(dsn, plain, activate=True)
    reindex(dsn, tuned, activate=True)
    reindex(dsn, tuned, fresh=True, index_method="hnsw")
    yield dsn
    with psycopg.connect(admin, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(_DATABASE)))


@pytest.fixture
def everything(dsn: str) -> Iterator[psycopg.Connection]:
    """That database, in a transaction that is undone, with no trigger, key or catalogue in the way."""
    with connect(dsn, vectors=True) as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute("SET allow_system_table_mods = on")
        with conn.transaction(force_rollback=True):
            yield conn


_SOME = "(SELECT min(chunk_id) FROM pgembed.triplet_candidates CROSS JOIN LATERAL (VALUES (anchor_id)) AS a(chunk_id))"
_PAIR = "(SELECT chunk_a, chunk_b FROM pgembed.candidate_pairs ORDER BY 1, 2 LIMIT 1)"
_CHANGE = "CASE split WHEN 'train' THEN 'test' ELSE 'train' END"

# name of the invariant, what breaks it, and what the problem says of the place
BROKEN = (
    ("broken_pointer", "UPDATE pgembed.generations SET state = 'ready' WHERE id = 2", "2 is pointed to and is ready"),
    ("broken_pointer", "DELETE FROM pgembed.active_generation", "generation 2 is active and is not pointed to"),
    ("broken_pointer", "UPDATE pgembed.active_generation SET previous_id = 3", "3 is to be gone back to and is ready"),
    ("broken_generation_rows", "UPDATE pgembed.generations SET probes = NULL WHERE id = 2", "it was never calibrated"),
    ("broken_generation_rows", "UPDATE pgembed.generations SET dims = 384 WHERE id = 3", "384 dimensions"),
    ("broken_generation_rows", "UPDATE pgembed.generations SET indexed_at = NULL WHERE id = 3", "a time is missing"),
    ("broken_generation_rows", "UPDATE pgembed.generations SET probes = 99 WHERE id = 2", "99 probes of 1 lists"),
    (
        "broken_generation_tables",
        "ALTER TABLE pgembed.code_embeddings DETACH PARTITION pgembed.code_embeddings_3",
        "generation 3 is ready: its table is not attached",
    ),
    (
        "broken_generation_tables",
        "UPDATE pg_inherits SET inhdetachpending = true WHERE inhrelid = 'pgembed.code_embeddings_1'::regclass",
        "generation 1 is retired: its table is half detached",
    ),
    ("broken_generation_tables", "DROP TABLE pgembed.code_embeddings_1", "generation 1 is retired: it has no table"),
    ("left_generations", "UPDATE pgembed.generations SET state = 'indexing' WHERE id = 3", "generation 3 is indexing"),
    (
        "broken_generation_indexes",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'pgembed.code_embeddings_2_embedding_idx'::regclass",
        "index code_embeddings_2_embedding_idx is invalid",
    ),
    ("broken_generation_indexes", "DROP INDEX pgembed.code_embeddings_3_hnsw_idx", "_3_hnsw_idx is missing"),
    (
        "left_indexes",
        "CREATE INDEX extra ON pgembed.code_embeddings_2 USING hnsw ((binary_quantize(embedding)::bit(2560))"
        " bit_hamming_ops)",
        "index extra of table code_embeddings_2",
    ),
    (
        "left_indexes",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'pgembed.candidate_pairs_chunk_b_idx'::regclass",
        "index candidate_pairs_chunk_b_idx of table candidate_pairs",
    ),
    ("vectors_missing", "DELETE FROM pgembed.code_embeddings_3 WHERE chunk_id = 5", "Generation 3 (ready)"),
    ("vectors_of_no_chunk", "DELETE FROM pgembed.code_chunks WHERE id = 5", "Generation 1 (retired)"),
    (
        "vectors_twice",
        "ALTER TABLE pgembed.code_embeddings DETACH PARTITION pgembed.code_embeddings_3;"
        "ALTER TABLE pgembed.code_embeddings_3 DROP CONSTRAINT code_embeddings_3_pkey;"
        "INSERT INTO pgembed.code_embeddings_3 SELECT * FROM pgembed.code_embeddings_3 WHERE chunk_id = 5",
        "chunk 5 has 2",
    ),
    (
        "vectors_of_others",
        "ALTER TABLE pgembed.code_embeddings DETACH PARTITION pgembed.code_embeddings_3;"
        "ALTER TABLE pgembed.code_embeddings_3 DROP CONSTRAINT code_embeddings_3_generation_id_check;"
        "UPDATE pgembed.code_embeddings_3 SET generation_id = 99 WHERE chunk_id = 5",
        "chunk 5, generation 99",
    ),
    (
        "vectors_of_rejected",
        """UPDATE pgembed.generations SET metrics = metrics || '{"rejected_chunks": [5]}' WHERE id = 2""",
        "chunk 5",
    ),
    ("vectors_miscounted", "UPDATE pgembed.generations SET row_count = 7 WHERE id = 2", "it says 7 and has"),
    (
        "vectors_not_unit",
        "UPDATE pgembed.code_embeddings_2 SET embedding = array_fill(0.5::real, ARRAY[2560])::vector"
        " WHERE chunk_id = 5",
        "chunk 5: length 25.2",
    ),
    (
        "vectors_not_unit",
        "UPDATE pgembed.code_embeddings_2 SET embedding = array_fill(0::real, ARRAY[2560])::vector WHERE chunk_id = 5",
        "chunk 5: length 0",
    ),
    (
        "vectors_beyond_slot",
        "UPDATE pgembed.code_embeddings_2 SET embedding = (array_fill(0::real, ARRAY[2559]) || 1::real)::vector"
        " WHERE chunk_id = 5",
        "chunk 5",
    ),
    ("left_sources", "UPDATE pgembed.sources SET ingested_at = NULL", "source code ("),
    ("chunks_without_place", "DELETE FROM pgembed.chunk_locations WHERE chunk_id = 5", "chunk 5"),
    ("places_of_nothing", "DELETE FROM pgembed.source_files WHERE path = 'heapq.py'", "heapq.py:"),
    ("chunks_misaddressed", "UPDATE pgembed.code_chunks SET content = content || ' ' WHERE id = 5", "chunk 5"),
    ("chunks_torn", "UPDATE pgembed.code_chunks SET line_count = 99 WHERE id = 5", "chunk 5: 99 lines"),
    ("chunks_torn", "UPDATE pgembed.code_chunks SET docstring = NULL, body = 'x' WHERE id = 5", "not its content"),
    ("chunks_torn", "UPDATE pgembed.chunk_locations SET end_line = 0 WHERE chunk_id = 5", "-0, chunk 5"),
    ("tokens_unknown", "UPDATE pgembed.code_chunks SET token_ids = token_ids || 1 WHERE id = 5", "chunk 5"),
    ("tokens_unknown", "UPDATE pgembed.code_chunks SET token_ids = token_ids || 999999 WHERE id = 5", "chunk 5"),
    ("tokens_miscounted", "UPDATE pgembed.tokens SET document_frequency = 999 WHERE id = 1", "it says 999 and is in"),
    (TOKENS, "UPDATE pgembed.code_chunks SET token_ids = token_ids[2:] WHERE id = 5", "chunk 5"),
    ("words_missing", "DELETE FROM pgembed.lexical_documents WHERE chunk_id = 5", "chunk 5"),
    ("words_missing", "UPDATE pgembed.lexical_documents SET described = false WHERE chunk_id = 5", "chunk 5"),
    ("words_of_nothing", "INSERT INTO pgembed.lexical_documents VALUES (999999, '{}')", "chunk 999999"),
    ("words_lost", "UPDATE pgembed.lexical_documents SET token_ids = '{}' WHERE chunk_id = 5", "chunk 5"),
    ("words_miscounted", "UPDATE pgembed.tokens SET lexical_frequency = 999 WHERE id = 1", "it says 999 and is in"),
    ("words_miscounted", "UPDATE pgembed.lexical_statistics SET documents = 1", "statistics: 1 documents"),
    ("words_miscounted", "DELETE FROM pgembed.lexical_statistics", "statistics: 0 documents"),
    (
        WORDS,
        "UPDATE pgembed.lexical_documents SET token_ids = ARRAY(SELECT id FROM pgembed.tokens ORDER BY 1)"
        " WHERE chunk_id = 5",
        "chunk 5",
    ),
    (
        "pairs_disordered",
        "ALTER TABLE pgembed.candidate_pairs DROP CONSTRAINT candidate_pairs_check;"
        f"UPDATE pgembed.candidate_pairs SET chunk_a = chunk_b, chunk_b = chunk_a WHERE (chunk_a, chunk_b) = {_PAIR}",
        "(",
    ),
    ("pairs_below_threshold", "UPDATE pgembed.pair_runs SET min_jaccard = 0.9", " at 0."),
    (
        "pairs_miscomputed",
        f"UPDATE pgembed.candidate_pairs SET jaccard = 0.987654 WHERE (chunk_a, chunk_b) = {_PAIR}",
        "shared, 0.9877",
    ),
    (
        "pairs_miscomputed",
        f"UPDATE pgembed.candidate_pairs SET intersection = 777 WHERE (chunk_a, chunk_b) = {_PAIR}",
        ": 777 shared",
    ),
    ("pairs_missing", f"DELETE FROM pgembed.candidate_pairs WHERE (chunk_a, chunk_b) = {_PAIR}", " at 0."),
    ("pairs_waiting", "INSERT INTO pgembed.pair_queue VALUES (5)", "chunk 5"),
    ("pairs_waiting", "DELETE FROM pgembed.jaccard_sets WHERE chunk_id = 5", "chunk 5"),
    ("sets_of_nothing", "DELETE FROM pgembed.code_chunks WHERE id = 5", "chunk 5"),
    ("sets_differing", "UPDATE pgembed.jaccard_sets SET prefix = prefix[2:] || 0 WHERE chunk_id = 5", "chunk 5"),
    ("slices_open", "UPDATE pgembed.pair_slices SET pairs = NULL", "run 1, slice 1"),
    (
        "splits_leaking",
        "INSERT INTO pgembed.candidate_pairs"
        " SELECT min(chunk_id) FILTER (WHERE split = 'train'), max(chunk_id) FILTER (WHERE split <> 'train'), 1, 0.95"
        "   FROM pgembed.chunk_splits"
        " ON CONFLICT (chunk_a, chunk_b) DO UPDATE SET jaccard = 0.95",
        "in train, chunk",
    ),
    ("splits_misplaced", f"UPDATE pgembed.chunk_splits SET split = {_CHANGE} WHERE chunk_id = {_SOME}", "code/"),
    ("triplets_stale", "UPDATE pgembed.mining_settings SET value = 7 WHERE name = 'seed'", "changed: settings"),
    ("triplets_of_nothing", f"DELETE FROM pgembed.code_chunks WHERE id = {_SOME}", "triplet "),
    (
        "triplets_across_splits",
        f"UPDATE pgembed.triplet_candidates SET split = {_CHANGE} WHERE ordinal = 1",
        "triplet 1 in ",
    ),
    (
        "triplets_contradicting",
        "UPDATE pgembed.triplet_candidates SET negative_id = positive_id WHERE ordinal = 1",
        "triplet 1: the negative is the positive",
    ),
    (
        "triplets_contradicting",
        "UPDATE pgembed.triplet_candidates SET negative_jaccard = 0.9 WHERE ordinal = 1",
        "triplet 1: the negative is a near-duplicate",
    ),
    (
        "triplets_contradicting",
        "UPDATE pgembed.triplet_candidates SET anchor = NULL WHERE kind = 'docstring'",
        "the positive is another function",
    ),
    (
        "triplets_miscomputed",
        "UPDATE pgembed.triplet_candidates SET negative_jaccard = 0.1234 WHERE ordinal = 1",
        "and 0.1234",
    ),
    ("left_runs", "UPDATE pgembed.training_runs SET state = 'running'", "run 1"),
    (
        "runs_incomplete",
        "DELETE FROM pgembed.training_metrics WHERE step = 2",
        "3 steps are noted, the last is 4, of 4",
    ),
    ("runs_incomplete", "UPDATE pgembed.training_runs SET encoder_id = NULL", "run 1: it has no result"),
)


def _told(name: str) -> str:
    known = {invariant.query: invariant.broken for invariant in (*INVARIANTS, *OF_A_GENERATION)}
    return known.get(name, name)


@pytest.mark.parametrize(
    ("name", "breaking", "place"), BROKEN, ids=[f"{n}-{name}" for n, (name, *_) in enumerate(BROKEN)]
)
def test_what_is_broken_is_named_with_its_place(
    everything: psycopg.Connection, name: str, breaking: str, place: str
) -> None:
    for statement in breaking.split(";"):
        assert everything.execute(statement).rowcount != 0  # type: ignore[call-overload]
    found = [problem for problem in violations(everything) if _told(name) in problem.what]
    assert any(place in problem.what for problem in found), found
    assert all(problem.remedy and "{" not in problem.remedy for problem in found)


def test_every_invariant_has_been_broken() -> None:
    names = {invariant.query for invariant in (*INVARIANTS, *OF_A_GENERATION)} | {TOKENS, WORDS}
    assert {name for name, *_ in BROKEN} == names


def test_what_is_sound_has_no_violation_to_people_and_scripts(dsn: str, home: Path) -> None:
    said = pgembed("doctor", "--strict", "--dsn", dsn)
    assert (said.code, said.stdout) == (0, "Nothing is wrong.\n")
    told = pgembed("doctor", "--strict", "--json", "--dsn", dsn)
    assert (told.code, json.loads(told.stdout)) == (0, {"problems": [], "fixed": []})


def test_only_strict_looks_and_then_the_exit_code_is_1(dsn: str, home: Path) -> None:
    with connect(dsn) as conn:
        conn.execute("UPDATE pgembed.tokens SET document_frequency = document_frequency + 5 WHERE id IN (1, 2, 3, 4)")
        try:
            assert pgembed("doctor", "--dsn", dsn).code == 0
            said = pgembed("doctor", "--strict", "--json", "--dsn", dsn)
            assert said.code == 1
            (problem,) = json.loads(said.stdout)["problems"]
            assert "Document frequencies" in problem["what"]
            assert problem["what"].count("token ") == 3
            assert problem["what"].endswith("; and 1 more.")
            assert problem["remedy"] == "pgembed ingest PATH"
        finally:
            assert pgembed("ingest", str(home / "code"), "--dsn", dsn).code == 0
    assert pgembed("doctor", "--strict", "--dsn", dsn).code == 0


def test_a_command_at_work_is_no_leftover(everything: psycopg.Connection, dsn: str) -> None:
    everything.execute("UPDATE pgembed.generations SET state = 'indexing' WHERE id = 3")
    everything.execute("UPDATE pgembed.training_runs SET state = 'running'")
    everything.execute("UPDATE pgembed.sources SET ingested_at = NULL")
    with connect(dsn) as worker:
        for lock in (
            "pg_advisory_lock_shared(hashtextextended('pgembed reindex',"
            " (SELECT encoder_id FROM pgembed.generations WHERE id = 3)))",
            "pg_advisory_lock(hashtext('pgembed.train'), 1)",
            "pg_advisory_lock(hashtextextended('pgembed.source', (SELECT id FROM pgembed.sources)))",
        ):
            worker.execute(f"SELECT {lock}")  # type: ignore[call-overload]
        assert not [problem for problem in violations(everything) if "left in the middle" in problem.what]


# ---------------------------------------------------------------- files


@pytest.fixture
def kept(everything: psycopg.Connection, home: Path, tmp_path: Path) -> Iterator[psycopg.Connection]:
    """The same, with files that are put back."""
    parts = ("models", "checkpoints")
    for part in parts:
        shutil.copytree(home / part, tmp_path / part)
    yield everything
    for part in parts:
        shutil.rmtree(home / part)
        shutil.copytree(tmp_path / part, home / part)


def _files(conn: psycopg.Connection) -> list[str]:
    return [problem.what for problem in broken_files(conn)]


def test_a_checkpoint_that_was_changed_is_gone_or_keeps_its_steps(kept: psycopg.Connection, home: Path) -> None:
    assert _files(kept) == []
    (final,) = home.glob("checkpoints/*/final")
    (final.parent / "step-000002").mkdir()
    (told,) = _files(kept)
    assert "Training run 1 is finished and has kept step-000002" in told
    (final.parent / "step-000002").rmdir()
    weights = final / "towers" / "tiny" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    (told,) = _files(kept)
    assert "The checkpoint of training run 1 is not what was trained" in told
    shutil.rmtree(final)
    (told,) = _files(kept)
    assert f"The checkpoint of training run 1 is not on this machine: {final}" in told


def test_a_model_that_was_changed_is_gone_or_another_one(kept: psycopg.Connection, home: Path) -> None:
    plain, tuned = home / "models" / "plain", home / "models" / "tuned"
    with (plain / "model.onnx").open("ab") as file:
        file.write(b"more")
    (told,) = _files(kept)
    assert "The model of generation 1 (retired) is not as it was exported" in told
    shutil.rmtree(plain)
    shutil.copytree(tuned, plain)
    (told,) = _files(kept)
    assert "holds another model than the one that filled generation 1 (retired)" in told
    shutil.rmtree(plain)
    (told,) = _files(kept)
    assert "The model of generation 1 (retired) is not as it was exported" in told


def test_what_is_half_written_is_named_unless_its_process_lives(kept: psycopg.Connection, home: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from pgembed.encoders.half_written import begin_folder;"
        "print(begin_folder(Path(sys.argv[1])), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(home / "models" / "new-one")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        place = process.stdout.readline().strip()
        assert Path(place).is_dir()
        assert _files(kept) == []
        process.kill()
    (told,) = _files(kept)
    assert place in told
    (final,) = home.glob("checkpoints/*/final")
    (final.parent / ".step-000003-ab12cd34").mkdir()
    assert len(_files(kept)) == 2
    assert str(os.getpid()) not in told
