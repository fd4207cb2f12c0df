"""Several processes that parse, and third parties' chunkers in them."""

from pathlib import Path

import pytest

from pgembed.corpus.parse import Job, parse_file
from pgembed.corpus.workers import parse_all

_CHUNKER = """
import os

from pgembed.corpus.chunk import Chunk, Chunked


class Cobol:
    name = "cobol/1"
    extensions = {".cob": "cobol"}

    def chunk(self, text, language):
        print("noise on standard output")
        if "raise" in text:
            raise RuntimeError("cannot read this")
        if "die" in text:
            os._exit(1)
        first = text.split("\\n")[0]
        chunk = Chunk(language, "function", "main", "main", first, "a \\0" if "nul" in text else None, first, 1, 1)
        return Chunked([chunk])
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that registers a chunker, on the path of the workers."""
    site = tmp_path / "site"
    (site / "cobol-1.0.dist-info").mkdir(parents=True)
    (site / "cobol_chunker.py").write_text(_CHUNKER)
    (site / "cobol-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: cobol\nVersion: 1.0\n")
    (site / "cobol-1.0.dist-info" / "entry_points.txt").write_text("[pgembed.chunkers]\ncobol = cobol_chunker:Cobol\n")
    monkeypatch.setenv("PYTHONPATH", str(site))


def _jobs(folder: Path, texts: dict[str, str]) -> list[Job]:
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [Job(str(folder), name, 1_000_000) for name in texts]


def test_batches_come_in_order_whatever_their_size(tmp_path: Path) -> None:
    jobs = _jobs(tmp_path, {f"m{n}.py": f"def f{n}():\n    return {n}\n" * (1 + 500 * (n % 7 == 0)) for n in range(60)})
    batches = [jobs[start : start + 3] for start in range(0, len(jobs), 3)]
    assert list(parse_all(batches, 3)) == [[parse_file(job) for job in batch] for batch in batches]


@pytest.mark.usefixtures("installed")
def test_a_third_partys_chunker_is_used_and_its_faults_cost_one_file_each(tmp_path: Path) -> None:
    jobs = _jobs(
        tmp_path,
        {"good.cob": "PROGRAM.", "raise.cob": "raise", "die.cob": "die", "nul.cob": "nul", "plain.py": "x = 1\n"},
    )
    (batch,) = parse_all([jobs], 2)
    good, raised, died, nul, plain = batch
    assert [(chunk.language, chunk.symbol) for _, chunk, _ in good.chunks] == [("cobol", "main")]
    assert (good.language, good.chunker) == ("cobol", "cobol/1")
    assert raised.unusable is not None
    assert (raised.unusable.reason, raised.unusable.detail) == (
        "chunker_failed", "cobol/1: RuntimeError: cannot read this",
    )  # fmt: skip
    assert died.unusable is not None
    assert died.unusable.reason == "crashed"
    assert nul.chunks == []
    assert [remark.reason for remark in nul.remarks] == ["nul_bytes"]
    assert len(plain.chunks) == 1


def test_stopping_early_stops_the_workers(tmp_path: Path) -> None:
    jobs = _jobs(tmp_path, {f"m{n}.py": "x = 1\n" for n in range(100)})
    parsing = parse_all(([job] for job in jobs), 2)
    assert next(parsing)[0].path == "m0.py"
    children = Path("/proc/self/task").glob("*/children")
    running = {child for task in children for child in task.read_text().split()}
    parsing.close()
    left = {child for task in Path("/proc/self/task").glob("*/children") for child in task.read_text().split()}
    assert len(running - left) == 2
