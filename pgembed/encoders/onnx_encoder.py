"""An exported encoder at work in ONNX Runtime: texts in, vectors out. Imports neither torch nor transformers."""

import os
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgembed.encoders.artefact import OUTPUT, ROLE, Manifest, input_names, load_manifest
from pgembed.encoders.batching import Embedded, Input, length_batches, pad, side_by_side
from pgembed.encoders.spec import ROLES, Role
from pgembed.encoders.tokenizer import Tokenizer
from pgembed.encoders.windows import Long, Window, WindowPool
from pgembed.errors import EncoderError, MissingExtra
from pgembed.progress import Task

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

# Padded tokens a call. On 2 CPU cores 1,024, 2,048 and 4,096 ran 56, 59 and 57 texts a second (standard library's
# functions, 256 tokens at most), with 2, 3 and 6% padding. The figure for CUDA is not measured.
_TOKEN_BUDGET = {"cpu": 2048, "cuda": 65536}


class OnnxEncoder:
    """A loaded artefact. `embed` may be called from several threads."""

    def __init__(self, manifest: Manifest, session: Any, *, provider: str, run_options: Any = None) -> None:
        self.manifest = manifest
        self._session = session
        self._run_options = run_options
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
        # what fails in a run is raised; printed as well, it would come once for each half of a batch
        run_options = onnxruntime.RunOptions()
        run_options.log_severity_level = 4
        return cls(manifest, session, provider=provider, run_options=run_options)

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
        found = self.embed_each(texts, role=role, max_tokens=max_tokens, task=task)
        if bad := invalid_rows(found.vectors):
            why = found.errors.get(bad[0], "NaN, infinite or zero")
            raise EncoderError(f"The encoder gave no usable vector ({why}) for the text at {bad[0]}.")
        return found.vectors

    def embed_each(
        self,
        texts: Sequence[str],
        *,
        role: Role,
        long: Long = "truncate",
        max_tokens: int | None = None,
        task: Task | None = None,
    ) -> Embedded:
        """Embed each text for itself: one that the tokenizer or the engine fails on costs no other its vector.

        Where a batch fails it is halved until the text that does it stands alone. `long` says what becomes of texts
        beyond the limit: cut, or embedded as windows and pooled.

        Raises:
            EncoderError: the engine fails on everything, not on a text.
        """
        errors: dict[int, str] = {}
        inputs, long_texts = self._tokenize(texts, role, long, max_tokens, errors)
        vectors = np.full((len(texts), self.dimensions), np.nan, dtype=np.float32)
        windowed = long_texts if long == "windows" else []
        pool = WindowPool(self.manifest.spec, windowed)
        pooling = set(windowed)
        lengths = [max(len(window.ids) for window in row.windows) for row in inputs]
        for positions in length_batches(lengths, token_budget=self._budget):
            for rows, found in self._run([inputs[n] for n in positions], role, errors):
                for row, vector in zip(rows, found, strict=True):
                    if row.text in pooling:
                        pool.add(row.text, vector, [window.tokens for window in row.windows])
                    else:
                        vectors[row.text] = vector
            if task is not None:
                task.advance(sum(inputs[n].is_last for n in positions))
        if windowed:
            vectors[windowed] = pool.pooled()
        vectors[list(errors)] = np.nan
        return Embedded(vectors, errors, long_texts)

    def _tokenize(
        self, texts: Sequence[str], role: Role, long: Long, max_tokens: int | None, errors: dict[int, str]
    ) -> tuple[list[Input], list[int]]:
        """Return the model's inputs, and the positions of the texts that are longer than a tower reads."""
        prompts = [tower.prompt(role) for tower in self.manifest.spec.towers]

        def encode(some: Sequence[str]) -> list[tuple[list[list[Window]], bool]]:
            """Return for each text the windows of each tower, and whether the text is long."""
            by_tower = [
                tokenizer.encode_marked([prompt + text for text in some], max_tokens=max_tokens)
                for tokenizer, prompt in zip(self._tokenizers, prompts, strict=True)
            ]
            found = []
            for text, towers in zip(some, zip(*by_tower, strict=True), strict=True):
                windows = [[Window(ids, 1)] for ids, _ in towers]
                is_long = any(is_cut for _, is_cut in towers)
                if is_long and long == "windows":
                    windows = [
                        tokenizer.windows(text, prompt=prompt, max_tokens=max_tokens)
                        for tokenizer, prompt in zip(self._tokenizers, prompts, strict=True)
                    ]
                found.append((windows, is_long))
            return found

        encoded: dict[int, tuple[list[list[Window]], bool]]
        try:
            encoded = dict(enumerate(encode(texts)))
        except EncoderError:
            raise
        except Exception:  # noqa: BLE001 - the library fails as a whole on one text: such as half a surrogate pair
            encoded = {}
            for position, text in enumerate(texts):
                try:
                    (encoded[position],) = encode([text])
                except Exception as error:  # noqa: BLE001 - it has no exceptions of its own
                    self._blame(position, role, error, errors)
        inputs = [row for text, (windows, _) in encoded.items() for row in side_by_side(text, windows)]
        return inputs, [text for text, (_, is_long) in encoded.items() if is_long]

    def _run(
        self, rows: list[Input], role: Role, errors: dict[int, str]
    ) -> Iterator[tuple[list[Input], NDArray[np.float32]]]:
        """Yield the vectors (B, D) of as many rows as the engine takes at once."""
        try:
            found = self._vectors([[row.windows[n].ids for row in rows] for n in range(len(self._inputs))], role)
        except Exception as error:  # noqa: BLE001 - what the engine raises has no common ancestor below this
            if len(rows) == 1:
                self._blame(rows[0].text, role, error, errors)
                return
            middle = len(rows) // 2
            yield from self._run(rows[:middle], role, errors)
            yield from self._run(rows[middle:], role, errors)
        else:
            yield rows, found

    def _vectors(self, ids: Sequence[Sequence[Sequence[int]]], role: Role) -> NDArray[np.float32]:
        """Return (B, D) for the ids of B texts, given for each tower."""
        feed: dict[str, NDArray[np.int64]] = {}
        for (ids_name, mask_name), rows in zip(self._inputs, ids, strict=True):
            feed[ids_name], feed[mask_name] = pad(rows)
        if self.manifest.spec.takes_role:
            feed[ROLE] = np.full(len(ids[0]), ROLES.index(role), dtype=np.int64)
        vectors: NDArray[np.float32] = self._session.run([OUTPUT], feed, self._run_options)[0]
        return vectors

    def _blame(self, text: int, role: Role, error: Exception, errors: dict[int, str]) -> None:
        """Note that a text cannot be embedded, unless a plain one cannot either: then it is the engine that fails."""
        try:
            self._vectors([tokenizer.encode(["x"]) for tokenizer in self._tokenizers], role)
        except Exception:  # noqa: BLE001 - as above
            raise EncoderError(
                f"The encoder in {self.manifest.path} fails on every text: {error}",
                remedy="Free memory or restart what it runs on, then run the same command again: it goes on.",
            ) from error
        errors[text] = f"{type(error).__name__}: {error}"


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
