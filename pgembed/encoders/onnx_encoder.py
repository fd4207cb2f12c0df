"""An exported encoder at work in ONNX Runtime: texts in, vectors out. Imports neither torch nor transformers."""

import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgembed.encoders.artefact import OUTPUT, Manifest, input_names, load_manifest
from pgembed.encoders.batching import length_batches, pad
from pgembed.encoders.spec import Role
from pgembed.encoders.tokenizer import Tokenizer
from pgembed.errors import EncoderError, MissingExtra
from pgembed.progress import Task

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

# Padded tokens a call. On 2 CPU cores 1,024, 2,048 and 4,096 ran 56, 59 and 57 texts a second (standard library's
# functions, 256 tokens at most), with 2, 3 and 6% padding. The figure for CUDA is not measured.
_TOKEN_BUDGET = {"cpu": 2048, "cuda": 65536}


class OnnxEncoder:
    """A loaded artefact. `embed` may be called from several threads."""

    def __init__(self, manifest: Manifest, session: Any, *, provider: str) -> None:
        self.manifest = manifest
        self._session = session
        self._budget = _TOKEN_BUDGET[provider]
        self._inputs = input_names(manifest.spec)
        self._tokenizers = [
            Tokenizer(manifest.tokenizer_path(tower), max_tokens=tower.max_tokens) for tower in manifest.spec.towers
        ]

    @classmethod
    def load(cls, artefact: Path, *, provider: str = "cpu", threads: int | None = None) -> "OnnxEncoder":
        """Load an artefact; `threads` defaults to the processors this process may use.

        Raises:
            EncoderError: the artefact is broken, or the provider asked for is not the one that would run.
            MissingExtra: ONNX Runtime is not installed.
        """
        if provider not in PROVIDERS:
            raise EncoderError(f"There is no provider {provider!r}.", remedy=f"There are {', '.join(PROVIDERS)}.")
        manifest = load_manifest(artefact)
        onnxruntime = _import_onnxruntime()
        if PROVIDERS[provider] not in onnxruntime.get_available_providers():
            raise EncoderError(
                f"This ONNX Runtime is built without {PROVIDERS[provider]}.",
                remedy="pip uninstall -y onnxruntime, then pip install 'pgembed-code[onnx-gpu]'.",
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        # Threads that spin while they wait cost a fifth of the rate where Postgres needs a core too.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors: what it warns of is checked below
        try:
            session = onnxruntime.InferenceSession(str(manifest.model_path), options, providers=[PROVIDERS[provider]])
        except Exception as error:
            raise EncoderError(f"{manifest.model_path} cannot be loaded: {error}") from error
        # Without CUDA's libraries the GPU build runs on the CPU and says so on stderr at most: only this tells.
        running = session.get_providers()[0]
        if running != PROVIDERS[provider]:
            raise EncoderError(
                f"{PROVIDERS[provider]} was asked for, and ONNX Runtime would run on {running}.",
                remedy="Install the GPU build (pip install 'pgembed-code[onnx-gpu]') with CUDA 13 and cuDNN 9, "
                "or ask for --provider cpu.",
            )
        return cls(manifest, session, provider=provider)

    @property
    def dimensions(self) -> int:
        """Width of a vector."""
        return self.manifest.spec.dimensions

    @property
    def truncated(self) -> int:
        """Texts that were cut at the limit so far."""
        return max(tokenizer.truncated for tokenizer in self._tokenizers)

    def embed(
        self, texts: Sequence[str], *, role: Role, max_tokens: int | None = None, task: Task | None = None
    ) -> NDArray[np.float32]:
        """Return (N, 2560) float32, L2-normalised, in the order given.

        Texts run in batches of like length. A vector depends on its neighbours in a batch by rounding alone
        (cosine above 0.999999).

        Raises:
            EncoderError: a vector is not finite or is zero; the message names the text's position.
        """
        vectors = self.embed_unchecked(texts, role=role, max_tokens=max_tokens, task=task)
        if bad := invalid_rows(vectors):
            raise EncoderError(f"The encoder gave no usable vector (NaN, infinite or zero) for the text at {bad[0]}.")
        return vectors

    def embed_unchecked(
        self, texts: Sequence[str], *, role: Role, max_tokens: int | None = None, task: Task | None = None
    ) -> NDArray[np.float32]:
        """Like `embed`, but a text without a usable vector keeps what the model gave; see `invalid_rows`."""
        prompted = [
            [tower.prompt(role) + text for text in texts] if tower.prompt(role) else list(texts)
            for tower in self.manifest.spec.towers
        ]
        ids = [
            tokenizer.encode(tower_texts, max_tokens=max_tokens)
            for tokenizer, tower_texts in zip(self._tokenizers, prompted, strict=True)
        ]
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        lengths = [max(len(tower_ids[n]) for tower_ids in ids) for n in range(len(texts))]
        for positions in length_batches(lengths, token_budget=self._budget):
            feed = {}
            for (ids_name, mask_name), tower_ids in zip(self._inputs, ids, strict=True):
                feed[ids_name], feed[mask_name] = pad([tower_ids[n] for n in positions])
            vectors[positions] = self._session.run([OUTPUT], feed)[0]
            if task is not None:
                task.advance(len(positions))
        return vectors


def invalid_rows(vectors: NDArray[np.float32]) -> list[int]:
    """Return the positions of vectors that must not reach the database: NaN, infinite, or zero."""
    norms = np.linalg.norm(vectors, axis=1)
    return np.flatnonzero(~(np.isfinite(norms) & (norms > 0))).tolist()


def _import_onnxruntime() -> Any:
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _installed(name)]
    if len(installed) == 2:
        raise EncoderError(
            "onnxruntime and onnxruntime-gpu are both installed; they overwrite each other's files, "
            "and which of them runs is chance.",
            remedy="pip uninstall -y onnxruntime onnxruntime-gpu, then install one: "
            "pip install 'pgembed-code[onnx]' or 'pgembed-code[onnx-gpu]'",
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("onnx", "Embedding", str(error)) from error
    return onnxruntime


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
