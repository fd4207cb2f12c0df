"""A dump of a database on PostgreSQL 16, restored on 18 as docs/operating.md says, holds all there was and works on."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from fixtures_cli import pgembed
from fixtures_older_server import OlderServer, older_server
from psycopg.conninfo import make_conninfo

from pgembed.corpus.ingest import ingest
from pgembed.db.connection import connect
from pgembed.db.embedded import ROLE, EmbeddedServer
from pgembed.db.migrations import upgrade
from pgembed.db.roles import apply_roles
from pgembed.mining.pairs import find_pairs
from pgembed.mining.triplets import refresh_triplets
from pgembed.vectors.reindex import reindex

_MODULES = ("textwrap.py", "heapq.py", "bisect.py", "queue.py", "gzip.py", "calendar.py")
_TABLES = (
    "sources", "source_files", "tokens", "code_chunks", "chunk_locations", "candidate_pairs", "chunk_splits",
    "triplet_candidates", "lexical_documents", "generations", "active_generation", "code_embeddings", "mining_settings",
)  # fmt: skip
_RESTORED = "restored"
_OWNER = "pgembed_test_owner"


@pytest.fixture(scope="module")
def old() -> Iterator[OlderServer]:
    with older_server() as server:
        yield server


def code(folder: Path) -> Path:
    for module in _MODULES:
        shutil.copy2(Path(sysconfig.get_paths()["stdlib"]) / module, folder)
    return folder


@pytest.fixture(scope="module")
def original(old: OlderServer, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database on the older server with something in every stage, beside an application's tables."""
    folder = code(tmp_path_factory.mktemp("code"))
    with psycopg.connect(old.dsn("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE shop")
    dsn = old.dsn("shop")
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("CREATE TABLE public.orders AS SELECT n AS id FROM generate_series(1, 100) AS n")
    upgrade(dsn)
    with connect(dsn) as conn:
        apply_roles(conn)
        ingest(conn, folder)
        find_pairs(conn, min_jaccard=0.3)
        refresh_triplets(conn)
    reindex(dsn, tiny_encoder, activate=True)
    return dsn


@pytest.fixture
def restored(embedded_server: EmbeddedServer) -> Iterator[str]:
    """An empty database on the newer server, on which there are no roles of ours."""
    server = make_conninfo(host=str(embedded_server.socket_dir), user=ROLE)
    with psycopg.connect(server, dbname="postgres", autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {_RESTORED} WITH (FORCE)")
        for role in ("pgembed_reader", "pgembed_writer", _OWNER):
            admin.execute(f"DROP ROLE IF EXISTS {role}")
        admin.execute(f"CREATE ROLE {_OWNER} LOGIN CREATEROLE")
        admin.execute(f"CREATE DATABASE {_RESTORED} ENCODING 'UTF8' TEMPLATE template0")
        admin.execute(f"GRANT CREATE ON DATABASE {_RESTORED} TO {_OWNER}")
        yield make_conninfo(server, dbname=_RESTORED)
        admin.execute(f"DROP DATABASE {_RESTORED} WITH (FORCE)")
        admin.execute(f"DROP ROLE {_OWNER}")


def contents(dsn: str) -> dict[str, object]:
    with psycopg.connect(dsn) as conn:
        return {
            table: conn.execute(
                f"SELECT count(*), md5(string_agg(md5(t::text), '' ORDER BY md5(t::text))) FROM pgembed.{table} AS t"
            ).fetchone()
            for table in _TABLES
        }


def documented(form: str, scope: str, owner: str) -> str:
    """Return the commands of the documentation, changed as its list says for this case."""
    text = (Path(__file__).parents[2] / "docs/operating.md").read_text()
    block = re.search(r"```sh\n(pg_dump .*?)```", text, re.DOTALL)
    assert block is not None
    script, restoring = block[1], 'pg_restore --exit-on-error --dbname="$NEW" shop.dump'
    assert restoring in script
    if form == "plain":
        reading = 'psql --set=ON_ERROR_STOP=1 --file=shop.dump "$NEW"'
        assert f"`{reading}`" in text
        script = script.replace("--format=custom ", "").replace(restoring, reading)
    if scope == "schema":
        assert "`pg_dump --schema=pgembed`" in text
        script = script.replace("pg_dump ", "pg_dump --schema=pgembed ")
    if owner != ROLE:
        assert "`pg_restore --no-owner --no-acl`" in text
        restored_by = f'pg_restore --no-owner --no-acl --exit-on-error --dbname="$NEW user={owner}" shop.dump'
        script = script.replace(restoring, f'{restored_by}\npgembed db roles --dsn "$NEW user={owner}"')
    return script


@pytest.mark.parametrize(
    ("form", "scope", "owner"),
    [
        ("custom", "all", ROLE),
        ("plain", "all", ROLE),
        ("custom", "schema", ROLE),
        ("plain", "schema", ROLE),
        ("custom", "schema", _OWNER),
    ],
)
def test_the_round_trip(
    original: str, restored: str, embedded_server: EmbeddedServer, tmp_path: Path, form: str, scope: str, owner: str
) -> None:
    done = subprocess.run(
        ["bash", "-euc", 'pgembed() { "$PYTHON" -m pgembed "$@"; }\n' + documented(form, scope, owner)],
        env={
            **os.environ,
            "PATH": f"{embedded_server.binary('psql').parent}:{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "OLD": original,
            "NEW": restored,
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert done.stdout.endswith("Nothing is wrong.\n")
    assert contents(restored) == contents(original)
    with psycopg.connect(restored) as conn:
        assert (conn.execute("SELECT to_regclass('public.orders')").fetchone() == (None,)) == (scope == "schema")

    query = ("search", "pop the smallest item from the heap", "--json", "--mode", "vector")
    assert pgembed(*query, "--dsn", restored).stdout == pgembed(*query, "--dsn", original).stdout
    reader = make_conninfo(restored, options="-c role=pgembed_reader")
    assert pgembed("search", "heap", "--mode", "lexical", "--dsn", reader).code == 0
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "more.py").write_text("def total(prices):\n    return sum(price.net for price in prices)\n")
    for command in (["ingest", str(tmp_path / "code")], ["pairs"], ["reindex"], ["doctor", "--strict"]):
        outcome = pgembed(*command, "--dsn", make_conninfo(restored, user=owner))
        assert outcome.code == 0, outcome.stdout + outcome.stderr


def test_before_analyze_nothing_has_failed(original: str, restored: str, embedded_server: EmbeddedServer) -> None:
    """What a dump does not hold is statistics, and autovacuum brings them."""
    dump = subprocess.run(
        [str(embedded_server.binary("pg_dump")), original], check=True, capture_output=True, text=True
    ).stdout
    subprocess.run(
        [str(embedded_server.binary("psql")), "--quiet", restored],
        input=dump,
        check=True,
        capture_output=True,
        text=True,
    )
    outcome = pgembed("doctor", "--json", "--dsn", restored)
    assert outcome.code == 0
    told = json.loads(outcome.stdout)["problems"]
    assert all(problem["warning"] and "was never analysed" in problem["what"] for problem in told)
    assert pgembed("doctor", "--fix", "--strict", "--dsn", restored).stdout.endswith(" is wrong.\n")
    assert pgembed("doctor", "--dsn", restored).stdout == "Nothing is wrong.\n"


def test_a_writers_first_pairs_leave_nothing_that_fails(old: OlderServer, tmp_path: Path) -> None:
    """Before version 17 only an owner may analyse a table: a writer's large ones wait for autovacuum."""
    with psycopg.connect(old.dsn("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE written")
    upgrade(old.dsn("written"))
    with connect(old.dsn("written")) as conn:
        apply_roles(conn)
    writer = make_conninfo(old.dsn("written"), options="-c role=pgembed_writer")
    for command in (["ingest", str(code(tmp_path))], ["pairs", "--min-jaccard", "0.3"]):
        outcome = pgembed(*command, "--dsn", writer)
        assert outcome.code == 0, outcome.stderr
    with psycopg.connect(old.dsn("written")) as conn:
        conn.execute("SELECT pg_stat_force_next_flush()")
    outcome = pgembed("doctor", "--strict", "--json", "--dsn", writer)
    told = json.loads(outcome.stdout)["problems"]
    assert outcome.code == 0, told
    assert all("was never analysed" in problem["what"] for problem in told)
