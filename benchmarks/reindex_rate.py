"""What the database costs a reindex: its chunks a second beside the bare session's on the very same batches.

    python benchmarks/reindex_rate.py --chunks 2000 --rounds 3 --precision int8

Each round reindexes real functions into a new generation on a server of its own (reading, tokenising, embedding and the
binary COPY; the index is not counted), and runs the session alone over the batches that this took, tokenised before,
on as many threads. Medians are printed. Postgres runs on the same processors, so that its work is in the difference.
"""

import argparse
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from functions import load, read_functions

from pgembed.db.connection import connect
from pgembed.db.embedded import EmbeddedServer
from pgembed.db.migrations import upgrade
from pgembed.encoders.batching import length_batches, pad
from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.training.export import export_encoder
from pgembed.training.variant import PRECISIONS, export_variant
from pgembed.vectors.reindex import BATCH, reindex_with


def main() -> None:
    """Print a line for each of the two."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--chunks", type=int, default=1000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--batch", type=int, default=BATCH)
    arguments.add_argument("--precision", choices=["fp32", *PRECISIONS], default="int8")
    options = arguments.parse_args()
    functions = read_functions(options.chunks, only_standard=True)
    with tempfile.TemporaryDirectory(prefix="pgembed-benchmark-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        artefact = export_encoder("minilm", Path(folder) / "float32")
        if options.precision != "fp32":
            artefact = export_variant(artefact, PRECISIONS[options.precision], Path(folder) / "variant")
        encoder = OnnxEncoder.load(artefact.path, bulk=True)
        feeds = bare_batches(encoder, [function.content for function in functions], options.batch)
        server = EmbeddedServer(Path(folder) / "server")
        server.start()
        try:
            upgrade(server.dsn)
            with connect(server.dsn, access="session") as conn:
                load(conn, functions)
            compare(server.dsn, encoder, feeds, options)
        finally:
            server.stop()


def compare(dsn: str, encoder: OnnxEncoder, feeds: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Run both in each round, in turns, and print the medians."""
    whole, bare = [], []
    run_bare(encoder, feeds[:20])
    for number in range(options.rounds):
        for which in ("bare", "whole") if number % 2 else ("whole", "bare"):
            if which == "bare":
                started = time.perf_counter()
                run_bare(encoder, feeds)
                bare.append(time.perf_counter() - started)
            else:
                result = reindex_with(dsn, encoder, batch=options.batch, fresh=True)
                assert result.embedded == options.chunks, result
                whole.append(result.embedding_seconds)
    load_average = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{options.chunks:,} chunks, {options.precision}, {options.rounds} rounds; load {load_average}")
    floor = statistics.median(bare)
    for name, seconds in (("bare session", floor), ("reindex", statistics.median(whole))):
        print(f"{name:<14}{options.chunks / seconds:>8.1f} chunks/s {floor / seconds:>6.0%}")


def bare_batches(encoder: OnnxEncoder, texts: list[str], page: int) -> list[dict[str, Any]]:
    """Return what the session is fed, page by page, as `embed_each` does it."""
    (tokenizer,) = encoder._tokenizers
    feeds = []
    for start in range(0, len(texts), page):
        ids = tokenizer.encode(texts[start : start + page])
        for batch in length_batches([len(row) for row in ids], token_budget=encoder._budget):
            input_ids, mask = pad([ids[n] for n in batch])
            feeds.append({"input_ids": input_ids, "attention_mask": mask})
    return feeds


def run_bare(encoder: OnnxEncoder, feeds: list[dict[str, Any]]) -> None:
    """Run the session alone, on as many threads as the encoder has lanes."""

    def run(feed: dict[str, Any]) -> int:
        vectors: np.ndarray = encoder._session.run(None, feed)[0]
        return len(vectors)

    with ThreadPoolExecutor(encoder._lanes) as lanes:
        assert sum(lanes.map(run, feeds)) == sum(len(feed["input_ids"]) for feed in feeds)


if __name__ == "__main__":
    main()
