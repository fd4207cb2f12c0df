"""Search by vectors, by words and by both: what each finds, and what the words cost the server.

    python benchmarks/hybrid.py quality --artefact DIR [--dataset DIR …] [--functions 1500]
    python benchmarks/hybrid.py speed [--functions 100000] [--cache FILE]

`quality` prints nDCG@10 on docstrings of installed packages (the standard library, and everything else apart) and on
data sets in BEIR's layout, for weights of the words in the fusion. `speed` fills a database on a server of its own and
asks it with docstrings: milliseconds, and how much of a full scan's ten best the budget keeps.
"""

import argparse
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from functions import Function, cached_functions, load

from pgembed.corpus.lexicon import complete_lexicon
from pgembed.db.connection import connect
from pgembed.db.embedded import EmbeddedServer
from pgembed.db.migrations import upgrade
from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.evaluation.beir import read_beir
from pgembed.evaluation.bootstrap import paired_bootstrap
from pgembed.evaluation.dataset import Dataset
from pgembed.evaluation.evaluate import rank_by_vectors
from pgembed.evaluation.fusion import fuse, read_fusion
from pgembed.evaluation.lexical import rank_by_words
from pgembed.evaluation.metrics import score_rankings
from pgembed.progress import SILENT
from pgembed.tokens import tokens

_WEIGHTS = (0.1, 0.2, 0.3, 0.5, 1.0)
_CONSTANTS = (10.0, 60.0)
_QUERIES = 400


def held_out(name: str, functions: list[Function], size: int, keep: Callable[[Function], bool]) -> Dataset:
    """Return docstrings as queries, and the bodies that they were cut from among `size`."""
    documents: dict[str, str] = {}
    queries: dict[str, str] = {}
    for function in functions:
        if len(documents) < size and keep(function) and "test" not in function.path:
            documents[identifier := str(len(documents))] = function.body
            words = len((function.docstring or "").split())
            if 4 <= words <= 300 and function.body.count("\n") >= 2 and len(queries) < _QUERIES:
                queries[identifier] = (function.docstring or "").strip()
    return Dataset(name, queries, documents, {query: {query: 1} for query in queries})


def quality(dsn: str, artefact: Path, folders: list[Path], functions: list[Function], size: int) -> None:
    encoder = OnnxEncoder.load(artefact)
    datasets = [
        held_out("standard library", functions, size, lambda f: f.source == "stdlib"),
        held_out("packages", functions, size, lambda f: f.source != "stdlib"),
        *map(read_beir, folders),
    ]
    with connect(dsn, vectors=True, access="session") as conn:
        fusion = read_fusion(conn)
        for dataset in datasets:
            names, documents = dataset.document_order, [dataset.documents[name] for name in dataset.document_order]
            words = rank_by_words(documents, list(dataset.queries.values()), k1=fusion.bm25_k1, b=fusion.bm25_b)
            vectors = rank_by_vectors(conn, encoder, dataset, SILENT)

            def values(
                rankings: list[list[int]], dataset: Dataset = dataset, names: list[str] = names
            ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
                named = zip(dataset.queries, rankings, strict=True)
                scores = score_rankings({q: [names[n] for n in r] for q, r in named}, dataset.judgements)
                return np.array([[scores[query]["ndcg@10"]] for query in sorted(scores)])

            alone = values(vectors)
            print(f"{dataset.name}: {len(dataset.queries)} queries, {len(documents)} documents")
            print(f"  vectors {alone.mean():.3f}, words {values(words).mean():.3f}")
            for constant in _CONSTANTS:
                for weight in _WEIGHTS:
                    setting = replace(fusion, rrf_k=constant, lexical_weight=weight)
                    both = values([fuse(v, w, setting) for v, w in zip(vectors, words, strict=True)])
                    (test,) = paired_bootstrap(alone, both)
                    print(
                        f"  rrf_k {constant:g}, words weigh {weight:g}: {both.mean():.3f},"
                        f" {test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}]"
                    )


def speed(dsn: str, functions: list[Function]) -> None:
    docstrings = [f.docstring.split("\n\n")[0] for f in functions if f.docstring and len(f.docstring.split()) >= 3]
    asked = {
        "a docstring's first paragraph": random.Random(1).sample(docstrings, 100),  # noqa: S311
        "two frequent words": ["return self"] * 10,
        "frequent words alone": ["the of to a in is and"] * 10,
        "one rare word": ["kurtosis"] * 10,
    }
    with connect(dsn, access="session") as conn:
        load(conn, functions)
        conn.execute("SELECT setval(pg_get_serial_sequence('pgembed.tokens', 'id'), max(id)) FROM pgembed.tokens")
        started = time.perf_counter()
        with conn.transaction():
            written = complete_lexicon(conn)
        print(f"{written:,} lexical documents in {time.perf_counter() - started:.1f} s")
        full = _full_scan(functions)
        for name, texts in asked.items():
            took, kept = [], []
            for text in texts:
                words = sorted(tokens(text))
                started = time.perf_counter()
                rows = conn.execute("SELECT chunk_id FROM pgembed.lexical_matches(%s)", (words,)).fetchall()
                took.append((time.perf_counter() - started) * 1000)
                best = full(words)
                kept.append(len({row[0] for row in rows} & best) / max(1, len(best)))
            print(
                f"{name}: median {statistics.median(took):.1f} ms, most {max(took):.1f} ms;"
                f" {statistics.mean(kept):.1%} of a full scan's ten best"
            )


def _full_scan(functions: list[Function]) -> Callable[[list[str]], set[int]]:
    """Return what finds the ten best of all by BM25, equal ones by id."""
    sets = [f.tokens | tokens(f"{f.symbol} {f.docstring or ''}") for f in functions]
    lengths = np.array([len(words) for words in sets])
    norms = 2.2 / (1 + 1.2 * (0.25 + 0.75 * lengths / lengths.mean()))
    holders: dict[str, list[int]] = {}
    for number, words in enumerate(sets):
        for word in words:
            holders.setdefault(word, []).append(number)

    def best(words: list[str]) -> set[int]:
        scores = np.zeros(len(sets))
        for word in words:
            if word in holders:
                frequency = len(holders[word])
                scores[holders[word]] += math.log1p((len(sets) - frequency + 0.5) / (frequency + 0.5))
        scores *= norms
        return {int(n) + 1 for n in np.argsort(-scores, kind="stable")[:10] if scores[n] > 0}

    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["quality", "speed"])
    parser.add_argument("--functions", type=int)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--artefact", type=Path)
    parser.add_argument("--dataset", type=Path, action="append", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pgembed-hybrid-") as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedServer(Path(folder) / "server", settings={"fsync": "off"})
        dsn = server.start()
        try:
            upgrade(dsn)
            if options.what == "speed":
                speed(dsn, cached_functions(options.cache, options.functions or 100_000))
            else:
                size = options.functions or 1500
                quality(dsn, options.artefact, options.dataset, cached_functions(options.cache, 60_000), size)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
