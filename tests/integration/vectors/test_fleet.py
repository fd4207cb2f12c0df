"""Reindex on a real Ray cluster of several nodes, one of which is killed."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from fixtures_cli import pgembed
from fixtures_vectors import add_code, stored_vectors

from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.errors import GenerationError
from pgembed.vectors.fleet import reindex_on_ray

ray = pytest.importorskip("ray", reason="the extra ray is not installed")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that does no work, as a process; tests add nodes of one processor each."""
    from ray.cluster_utils import Cluster

    try:
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        ray.init(address=found.address, logging_level="error", log_to_driver=False, namespace="pgembed")
    except Exception as error:  # noqa: BLE001 - whatever Ray misses here: shared memory, ports
        pytest.skip(f"no Ray cluster can be started on this machine: {error}")
    try:
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


def _texts(count: int) -> list[str]:
    return [f"topic{n % 7} code {n} {'word ' * 40}" for n in range(count)]


def test_a_node_that_is_killed_costs_no_chunk(
    conn: psycopg.Connection, database_url: str, tiny_encoder: Path, cluster: Any
) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    add_code(conn, _texts(6000))  # two ranges
    said: list[str] = []

    class Said:
        def task(self, *arguments: Any) -> Any:
            from pgembed.progress import SILENT

            return SILENT.task(*arguments)

        def say(self, text: str) -> None:
            said.append(text)

    def kill() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if conn.execute("SELECT to_regclass('pgembed.code_embeddings_1')").fetchone() != (None,):
                row = conn.execute("SELECT count(*) FROM pgembed.code_embeddings_1").fetchone()
                if row is not None and row[0] > 50:
                    break
            time.sleep(0.05)
        cluster.remove_node(nodes[0], allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    result = reindex_on_ray(database_url, tiny_encoder, workers=2, batch=16, progress=Said())
    killer.join()
    assert (result.rows, result.state) == (6000, "ready")
    contents = dict(conn.execute("SELECT id, content FROM pgembed.code_chunks ORDER BY id").fetchall())
    found = stored_vectors(conn, 1)
    assert found.keys() == contents.keys()
    some = list(contents)[::40]
    straight = OnnxEncoder.load(tiny_encoder, threads=1).embed([contents[i] for i in some], role="passage")
    assert np.abs(np.array([found[i] for i in some]) - straight).max() < 1e-5
    assert "2 workers on a cluster of 3 nodes" in said[0]
    assert "A worker died; another takes its place." in said


def test_what_an_actor_meets_is_told_here(database_url: str, tiny_encoder: Path, cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(GenerationError, match="no chunks"):
        reindex_on_ray(database_url, tiny_encoder, workers=1)
    with pytest.raises(GenerationError, match="is not on the node"):
        reindex_on_ray(database_url, tmp_path / "gone", workers=1)
    with pytest.raises(GenerationError, match="processors"):
        reindex_on_ray(database_url, tiny_encoder, workers=500)


def test_wrong_usage(database_url: str) -> None:
    assert pgembed("reindex", "--engine", "spark", "--dsn", database_url).code == 2
    assert pgembed("reindex", "--engine", "ray", "--watch", "--dsn", database_url).code == 2
