"""Texts a second on the CPU: ours in each precision beside sentence-transformers, fastembed and a bare session.

    python benchmarks/embedding.py --texts 400 --rounds 5

All embed the same functions of the standard library with the same weights (MiniLM), cut at the same 256 tokens, in an
order that is shuffled anew each round; each round runs every contender once, in random order. Printed are medians over
the rounds, and for each the processor time as well: where other work is going on, that tells more than the wall clock.
On a quiet machine take --texts 2000 --rounds 5 (half an hour on two cores). `share of sgemm` is the arithmetic of the
model on real tokens, a second, over what a float32 matrix product of its shape reaches on the same threads.

fastembed runs from the folder that --fastembed names (pip install --target FOLDER fastembed), which keeps its pinned
versions out of this environment. int8 and fp16 are written without their gate: `pgembed export --precision` has it.
"""

import argparse
import gc
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from functions import read_functions

from pgembed.encoders.batching import length_batches, pad
from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.encoders.presets import preset
from pgembed.encoders.session import available_threads, open_session
from pgembed.encoders.tokenizer import Tokenizer
from pgembed.encoders.weights import locate
from pgembed.training.export import export_encoder
from pgembed.training.variant import export_variant

Embed = Callable[[Sequence[str]], np.ndarray]
_TOWER = preset("minilm").towers[0]
_BATCH = 32  # texts at a time of those that batch by number: sentence-transformers' default


@dataclass
class Contender:
    """One way to embed, and what was measured of it."""

    name: str
    embed: Embed
    padding: float
    seconds: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    cosine: float = 1.0


def main() -> None:
    """Print a line for each contender."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--texts", type=int, default=400)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--threads", type=int, default=available_threads())
    arguments.add_argument("--fp16", action="store_true", help="too: on a CPU it is slower than float32")
    arguments.add_argument("--fastembed", type=Path, help="folder that fastembed was installed into")
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    texts = [function.content for function in read_functions(options.texts, seed=options.seed, only_standard=True)]
    with tempfile.TemporaryDirectory() as folder:
        reference = export_encoder("minilm", Path(folder) / "float32")
        artefacts = {"ours, float32": reference.path}
        for precision in ("int8", "float16") if options.fp16 else ("int8",):
            artefacts[f"ours, {precision}"] = export_variant(reference, precision, Path(folder) / precision).path
        lengths = _lengths(reference.path, texts)
        contenders = [_sentence_transformers(lengths, options.threads)]
        if options.fastembed is not None:
            contenders += _fastembed(options.fastembed, reference.path, Path(folder), lengths, options.threads)
        contenders.append(_bare(reference.path, lengths, options.threads))
        contenders += [_ours(name, path, lengths, options.threads) for name, path in artefacts.items()]
        _measure(contenders, texts, options.rounds, random.Random(options.seed))  # noqa: S311 - an order, no secret
    _print(contenders, lengths, options.threads)


def _measure(contenders: list[Contender], texts: list[str], rounds: int, order: random.Random) -> None:
    first = contenders[0].embed(texts)  # warms up as well
    for contender in contenders[1:]:
        found = contender.embed(texts)[:, : first.shape[1]]
        contender.cosine = float((found * first).sum(axis=1).min())
    for _ in range(rounds):
        shuffled = order.sample(texts, len(texts))
        for contender in order.sample(contenders, len(contenders)):
            gc.collect()
            with _Peak() as peak:
                wall, processor = time.perf_counter(), time.process_time()
                contender.embed(shuffled)
                contender.seconds.append(time.perf_counter() - wall)
                contender.processor_s.append(time.process_time() - processor)
            contender.peak_bytes = max(contender.peak_bytes, peak.bytes)


def _print(contenders: list[Contender], lengths: list[int], threads: int) -> None:
    tokens, sgemm = sum(lengths), _sgemm_rate(threads)
    per_token = 2 * _matrix_parameters()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{len(lengths)} texts, {tokens:,} tokens, {threads} threads; load {load}; sgemm {sgemm / 1e9:.0f} GFLOP/s")
    print(f"{per_token / 1e6:.1f} MFLOP a token, attention not counted")
    heading = ("", "texts/s", "tokens/s", "×", "× cpu", "cosine ≥", "padding", "memory", "of sgemm")
    print("{:<44}{:>9}{:>10}{:>7}{:>7}{:>10}{:>9}{:>9}{:>10}".format(*heading))
    first = contenders[0]
    for one in contenders:
        seconds = statistics.median(one.seconds)
        ratio = statistics.median(first.seconds) / seconds
        processor = statistics.median(first.processor_s) / statistics.median(one.processor_s)
        print(
            f"{one.name:<44}{len(lengths) / seconds:>9.1f}{tokens / seconds:>10,.0f}{ratio:>7.2f}{processor:>7.2f}"
            f"{one.cosine:>10.5f}{one.padding:>9.1%}{one.peak_bytes / 1e6:>6,.0f} MB"
            f"{tokens / seconds * per_token / sgemm:>10.0%}"
        )
    print(
        "×: to the first, by the wall clock; × cpu: by processor time. memory: growth of the process while it embeds."
    )


def _sentence_transformers(lengths: list[int], threads: int) -> Contender:
    import sentence_transformers
    import torch

    torch.set_num_threads(threads)
    model = sentence_transformers.SentenceTransformer(str(locate(_TOWER)), device="cpu")
    versions = f"{sentence_transformers.__version__}, torch {torch.__version__}"
    by_length = sorted(lengths, reverse=True)
    return Contender(
        f"sentence-transformers {versions}",
        lambda texts: np.asarray(model.encode(list(texts), batch_size=_BATCH, normalize_embeddings=True)),
        _padding([by_length[n : n + _BATCH] for n in range(0, len(by_length), _BATCH)]),
    )


def _bare(artefact: Path, lengths: list[int], threads: int) -> Contender:
    """ONNX Runtime as its documentation has it: the same graph, batches of 32 in the order given."""
    tokenizer = Tokenizer(artefact / f"tokenizer-{_TOWER.name}.json", max_tokens=_TOWER.max_tokens)
    session = open_session(artefact / "model.onnx", provider="cpu", threads=threads)

    def embed(texts: Sequence[str]) -> np.ndarray:
        found = []
        for start in range(0, len(texts), _BATCH):
            ids, mask = pad(tokenizer.encode(texts[start : start + _BATCH]))
            found.append(session.run(None, {"input_ids": ids, "attention_mask": mask})[0])
        return np.concatenate(found)

    return Contender(
        "bare ONNX Runtime, order given",
        embed,
        _padding([lengths[n : n + _BATCH] for n in range(0, len(lengths), _BATCH)]),
    )


def _ours(name: str, artefact: Path, lengths: list[int], threads: int) -> Contender:
    encoder = OnnxEncoder.load(artefact, threads=threads, bulk=True)
    batches = length_batches(lengths, token_budget=encoder._budget)
    return Contender(
        name,
        lambda texts: encoder.embed(texts, role="passage"),
        _padding([[lengths[n] for n in batch] for batch in batches]),
    )


def _fastembed(installed: Path, artefact: Path, scratch: Path, lengths: list[int], threads: int) -> list[Contender]:
    """fastembed on our float32 graph's weights: it takes a folder with model.onnx and the tokenizer's files."""
    sys.path.append(str(installed))
    try:
        from fastembed import TextEmbedding  # type: ignore[import-not-found, unused-ignore]
        from fastembed.common.model_description import (  # type: ignore[import-not-found, unused-ignore]
            ModelSource,
            PoolingType,
        )
    except ImportError as error:
        print(f"fastembed cannot be imported: {error}")
        return []
    folder = scratch / "fastembed"
    folder.mkdir()
    shutil.copyfile(artefact / "model.onnx", folder / "model.onnx")
    published = locate(_TOWER)
    for name in ("config.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(published / name, folder / name)
    tokenizer = json.loads((published / "tokenizer.json").read_text())
    tokenizer["truncation"] = tokenizer["padding"] = None
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"model_max_length": _TOWER.max_tokens, "max_length": _TOWER.max_tokens}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    TextEmbedding.add_custom_model(
        model="minilm-on-disk",
        pooling=PoolingType.DISABLED,  # the graph pools and normalises
        normalization=False,
        sources=ModelSource(hf="none/none"),
        dim=2560,
        model_file="model.onnx",
    )
    model = TextEmbedding("minilm-on-disk", specific_model_path=str(folder), threads=threads)
    return [
        Contender(
            "fastembed, batches of 32",
            lambda texts: np.stack(list(model.embed(list(texts), batch_size=_BATCH))),
            _padding([lengths[n : n + _BATCH] for n in range(0, len(lengths), _BATCH)]),
        )
    ]


def _lengths(artefact: Path, texts: list[str]) -> list[int]:
    tokenizer = Tokenizer(artefact / f"tokenizer-{_TOWER.name}.json", max_tokens=_TOWER.max_tokens)
    return [len(ids) for ids in tokenizer.encode(texts)]


def _padding(batches: list[list[int]]) -> float:
    """Return the share of all tokens that the model is given that is padding."""
    return 1 - sum(map(sum, batches)) / sum(len(batch) * max(batch) for batch in batches)


def _matrix_parameters() -> int:
    """Return the weights that every token is multiplied with: all matrices but the embedding tables."""
    config: dict[str, Any] = json.loads((locate(_TOWER) / "config.json").read_text())
    width, wide = config["hidden_size"], config["intermediate_size"]
    return int(config["num_hidden_layers"] * (4 * width * width + 2 * width * wide))


def _sgemm_rate(threads: int) -> float:
    """Return floating-point operations a second of a float32 matrix product, the best of several."""
    import torch

    torch.set_num_threads(threads)
    a, b = torch.randn(2048, 384), torch.randn(384, 1536)
    best = 0.0
    for _ in range(10):
        started = time.perf_counter()
        for _ in range(20):
            a @ b
        best = max(best, 20 * 2 * 2048 * 384 * 1536 / (time.perf_counter() - started))
    return best


class _Peak:
    """Growth of this process's memory while the block runs, looked at every 20 ms."""

    bytes = 0

    def __enter__(self) -> "_Peak":
        self._stop, self._before = threading.Event(), _resident_bytes()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.bytes = max(self.bytes, _resident_bytes() - self._before)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
