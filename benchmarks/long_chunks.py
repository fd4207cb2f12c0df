"""Chunks longer than the encoder reads: cut at its limit, or embedded in windows and averaged. Which finds more?

    python benchmarks/long_chunks.py --artefact DIR --dataset DIR

Docstrings search for the bodies that they were cut from, with the functions' names and with the names masked, among
long and short functions of the standard library; --dataset is in BEIR's layout. Prints nDCG@10 both ways and the
difference with its 95% interval, for all queries and for those whose answer is long.
"""

import argparse
from pathlib import Path

import numpy as np
from functions import Function, read_functions

from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.evaluation.beir import read_beir
from pgembed.evaluation.bootstrap import paired_bootstrap
from pgembed.evaluation.dataset import Dataset, text_id
from pgembed.evaluation.held_out import mask_name
from pgembed.evaluation.metrics import score_rankings


def main() -> None:
    """Print two lines for each data set."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--artefact", type=Path, required=True)
    arguments.add_argument("--functions", type=int, default=10_000, help="drawn from the standard library")
    arguments.add_argument("--long", type=int, default=600, help="documents above 1,100 characters")
    arguments.add_argument("--short", type=int, default=900, help="and below")
    arguments.add_argument("--dataset", type=Path, nargs="*", default=[])
    options = arguments.parse_args()
    encoder = OnnxEncoder.load(options.artefact)
    functions = read_functions(options.functions, only_standard=True)
    drawn = [f for f in functions if len(f.body) > 1100][: options.long]
    drawn += [f for f in functions if len(f.body) <= 1100][: options.short]
    for masked in (False, True):
        compare(encoder, docstrings(drawn, masked=masked))
    for folder in options.dataset:
        compare(encoder, read_beir(folder))


def docstrings(functions: list[Function], *, masked: bool) -> Dataset:
    """Return docstrings as queries for the bodies that they were cut from."""
    documents: dict[str, str] = {}
    queries: dict[str, str] = {}
    judgements: dict[str, dict[str, int]] = {}
    for function in functions:
        text = mask_name(function.body, function.symbol) if masked else function.body
        documents[text_id(text)] = text
        if function.docstring is not None and 4 <= len(function.docstring.split()) <= 300:
            queries[text_id(function.docstring)] = function.docstring
            judgements.setdefault(text_id(function.docstring), {})[text_id(text)] = 1
    return Dataset(f"docstrings, names {'masked' if masked else 'kept'}", queries, documents, judgements)


def compare(encoder: OnnxEncoder, dataset: Dataset) -> None:
    """Embed the documents both ways and print what each finds."""
    names = list(dataset.judgements)
    queries = encoder.embed([dataset.queries[name] for name in names], role="query")
    documents, texts = list(dataset.documents), list(dataset.documents.values())
    scores = []
    for how in ("truncate", "windows"):
        embedded = encoder.embed_each(texts, role="passage", long=how)
        best = np.argsort(-(queries @ embedded.vectors.T), axis=1, kind="stable")[:, :10]
        rankings = {name: [documents[n] for n in row] for name, row in zip(names, best, strict=True)}
        per_query = score_rankings(rankings, dataset.judgements)
        scores.append(np.array([per_query[name]["ndcg@10"] for name in names]))
    long = {documents[n] for n in embedded.long}
    is_long = np.array([any(one in long for one in dataset.judgements[name]) for name in names])
    print(f"{dataset.name}: {len(long):,} of {len(documents):,} documents are long")
    for label, chosen in (("all", np.full(len(is_long), True)), ("answer is long", is_long)):
        if chosen.any():
            cut, windows = (one[chosen, np.newaxis] for one in scores)
            (test,) = paired_bootstrap(cut, windows)
            print(
                f"  {label}: {chosen.sum():,} queries, cut {cut.mean():.3f}, windows {windows.mean():.3f}, "
                f"{test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}]"
            )


if __name__ == "__main__":
    main()
