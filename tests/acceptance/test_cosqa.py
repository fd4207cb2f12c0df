"""The published model's published behaviour, through all of the pipeline: the proof that nothing on the way bends it.

all-MiniLM-L6-v2 is exported, every function of CoSQA's development set goes through `reindex` into a generation, and
the 500 web queries are ranked in the database, by exact search and by the index. The exact figures are held to a
reference, the index to its calibration, which knew nothing of these queries. The reference was computed apart from
this project, with transformers: float32, mean pooling, 256 tokens, cosine, rank = 1 + the number scored strictly
higher.

The data (Computational Use of Data Agreement) is not part of this project. Put it, in BEIR's layout, into
../shared/data/cosqa-dev beside the checkout, or name the folder that holds cosqa-dev in PGEMBED_TEST_DATA.

Source: Huang et al. 2021, "CoSQA: 20,000+ Web Queries for Code Search and Question Answering".
"""

import hashlib
import os
from pathlib import Path

import numpy as np
import psycopg
import pytest

from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.evaluation.beir import read_beir
from pgembed.evaluation.metrics import score_rankings
from pgembed.evaluation.ranking import rank_generation
from pgembed.vectors.reindex import reindex

_BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "data"
_DATA = Path(os.environ.get("PGEMBED_TEST_DATA", _BESIDE)) / "cosqa-dev"

_REFERENCE = {"ndcg@10": 0.603, "mrr@10": 0.534, "recall@10": 0.822}


def _load(conn: psycopg.Connection, texts: list[str]) -> dict[str, int]:
    """Store each text as a chunk in a file of its own, by COPY, and return the chunks' ids by text."""
    row = conn.execute("INSERT INTO pgembed.sources (name, root) VALUES ('cosqa', '/cosqa') RETURNING id").fetchone()
    assert row is not None
    source = row[0]
    hashes = [hashlib.sha256(b"python\0function\0" + text.encode()).digest() for text in texts]
    with conn.cursor() as cursor:
        with cursor.copy(
            "COPY pgembed.code_chunks (sha256, language, kind, content, body, token_ids, line_count) FROM STDIN"
        ) as copy:
            for digest, text in zip(hashes, texts, strict=True):
                copy.write_row((digest, "python", "function", text, text, [], text.count("\n") + 1))
        with cursor.copy(
            "COPY pgembed.source_files (source_id, path, sha256, size_bytes, modified_ns, chunker) FROM STDIN"
        ) as copy:
            for number, text in enumerate(texts):
                digest = hashlib.sha256(text.encode()).digest()
                copy.write_row((source, f"{number}.py", digest, len(text.encode()), 0, "none"))
        ids = dict(cursor.execute("SELECT sha256, id FROM pgembed.code_chunks").fetchall())
        with cursor.copy(
            "COPY pgembed.chunk_locations (chunk_id, source_id, path, start_line, end_line) FROM STDIN"
        ) as copy:
            for number, (digest, text) in enumerate(zip(hashes, texts, strict=True)):
                copy.write_row((ids[digest], source, f"{number}.py", 1, text.count("\n") + 1))
    return {text: ids[digest] for digest, text in zip(hashes, texts, strict=True)}


def _nearest(conn: psycopg.Connection, generation: int, vector: np.ndarray) -> list[int]:
    """Return the ten chunks that the generation's index finds, as a search does."""
    statement = "SELECT chunk_id FROM pgembed.nearest(%s, 10, generation => %s)"
    return [chunk for (chunk,) in conn.execute(statement, (vector, generation))]


@pytest.mark.real_weights
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not _DATA.is_dir(), reason=f"the data set is not there: no folder {_DATA}")
def test_the_base_model_gives_its_reference_figures(
    conn: psycopg.Connection, database_url: str, minilm_artefact: Path
) -> None:
    dataset = read_beir(_DATA)
    assert (len(dataset.documents), len(dataset.queries)) == (6267, 500)
    chunks = _load(conn, list(dataset.documents.values()))
    documents = {chunks[text]: document for document, text in dataset.documents.items()}

    generation = reindex(database_url, minilm_artefact)
    assert (generation.rows, generation.rejected) == (6267, 0)

    queries = OnnxEncoder.load(minilm_artefact).embed(list(dataset.queries.values()), role="query")
    found = {
        "exact": rank_generation(conn, generation.generation_id, queries),
        "index": [_nearest(conn, generation.generation_id, vector) for vector in queries],
    }
    means = {}
    for how, ranked in found.items():
        rankings = {
            query: [documents[chunk] for chunk in ids] for query, ids in zip(dataset.queries, ranked, strict=True)
        }
        scores = score_rankings(rankings, dataset.judgements)
        means[how] = {metric: float(np.mean([values[metric] for values in scores.values()])) for metric in _REFERENCE}
    print(f"cosqa-dev: {means}; {generation.chunks_per_second:.0f} chunks/s, index recall {generation.index_recall}")
    assert means["exact"] == pytest.approx(_REFERENCE, abs=0.005)
    # Every build of the index draws its lists at random: over twenty builds it found .938 to .959 of what exact search
    # finds for these queries, calibrated to .950 to .956, and lost the right function of 4 to 20 of the 411 queries.
    assert generation.index_recall is not None
    pairs = zip(found["exact"], found["index"], strict=True)
    recall = float(np.mean([len(set(exact) & set(index)) / 10 for exact, index in pairs]))
    assert recall >= generation.index_recall - 0.04
    assert means["index"]["recall@10"] >= means["exact"]["recall@10"] * (generation.index_recall - 0.04)
