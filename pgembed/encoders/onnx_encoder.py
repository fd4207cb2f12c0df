"""An exported encoder at work in ONNX Runtime: texts in, vectors out. Imports neither torch nor transformers."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgembed.encoders.artefact import OUTPUT, ROLE, Manifest, input_names, load_manifest
from pgembed.encoders.batching import Embedded, Input, length_batches, pad, side_by_side
from pgembed.encoders.session import available_threads, open_session, quiet_run_options
from pgembed.encoders.spec import ROLES, Role
from pgembed.encoders.tokenizer import Tokenizer
from pgembed.encoders.windows import Long, Window, WindowPool
from pgembed.errors import EncoderError
from pgembed.progress import Task

# Padded tokens a call. On the CPU small batches stay in the cache: MiniLM on the standard library's functions took, in
# seconds of processor time for 32,831 tokens, 8.4 at 512, 8.9 at 1,024, 9.4 at 2,048 and 10.5 at 4,096 (int8: 3.8, 4.3,
# 4.4, 4.8). The figure for CUDA is not measured.
_TOKEN_BUDGET = {"cpu": 512, "cuda": 65536}
# Tokens in flight for each batch at work: a text of this length has attention of 0.8 GB in a tower of 12 heads.
_LANE_TOKENS = 4096

_Found = list[tuple[list[Input], NDArray[np.float32]]]


class OnnxEncoder:
    """A loaded artefact. `embed` may be called from several threads."""

    def __init__(
        self, manifest: Manifest, session: Any, *, provider: str, lanes: int = 1, run_options: Any = None
    ) -> None:
        self.manifest = manifest
        self._session = session
        self._run_options = run_options
        self._lanes = lanes
        self._binds = provider == "cuda"
        self._budget = _TOKEN_BUDGET[provider]
        self._inputs = input_names(manifest.spec)
        self._tokenizers = [
            Tokenizer(manifest.tokenizer_path(tower), max_tokens=tower.max_tokens) for tower in manifest.spec.towers
        ]

    @classmethod
    def load(
        cls, artefact: Path, *, provider: str = "cpu", threads: int | None = None, bulk: bool = False
    ) -> "OnnxEncoder":
        """Load an artefact; `threads` defaults to the processors this process may use.

        `bulk` is for many texts: on the CPU as many batches run side by side as there are threads, each on one. That
        takes a sixth less processor time than one batch on all of them, and none waits for another; a single text is
        sooner ready without it.

        Raises:
            EncoderError: the artefact is broken, or the provider asked for is not the one that would run.
            MissingExtra: ONNX Runtime is not installed.
        """
        return cls.of(load_manifest(artefact), provider=provider, threads=threads, bulk=bulk)

    @classmethod
    def of(
        cls, manifest: Manifest, *, provider: str = "cpu", threads: int | None = None, bulk: bool = False
    ) -> "OnnxEncoder":
        """Load the artefact that `manifest` describes, whose files are not hashed again."""
        threads = threads or available_threads()
        lanes = threads if bulk and provider == "cpu" else 1
        session = open_session(manifest.model_path, provider=provider, threads=threads // lanes)
        return cls(manifest, session, provider=provider, lanes=lanes, run_options=quiet_run_options())

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
        for batch, done in self._batches(inputs, role, errors):
            for rows, found in done:
                for row, vector in zip(rows, found, strict=True):
                    if row.text in pooling:
                        pool.add(row.text, vector, [window.tokens for window in row.windows])
                    else:
                        vectors[row.text] = vector
            if task is not None:
                task.advance(sum(row.is_last for row in batch))
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

    def _batches(self, inputs: list[Input], role: Role, errors: dict[int, str]) -> Iterator[tuple[list[Input], _Found]]:
        """Yield each batch with its vectors, `lanes` of them at work at a time.

        What is in flight is bounded, vectors that wait to be taken included.
        """
        lengths = [max(len(window.ids) for window in row.windows) for row in inputs]

        def run(batch: list[Input]) -> _Found:
            return list(self._run(batch, role, errors))

        batches = ([inputs[n] for n in positions] for positions in length_batches(lengths, token_budget=self._budget))
        if self._lanes == 1:
            yield from ((batch, run(batch)) for batch in batches)
            return
        flying: deque[tuple[list[Input], int, Future[_Found]]] = deque()
        with ThreadPoolExecutor(self._lanes, thread_name_prefix="embed") as lanes:
            try:
                for batch in batches:
                    size = sum(len(window.ids) for row in batch for window in row.windows)
                    while flying and (
                        len(flying) > 2 * self._lanes
                        or size + sum(tokens for _, tokens, _ in flying) > self._lanes * _LANE_TOKENS
                    ):
                        first, _, future = flying.popleft()
                        yield first, future.result()
                    flying.append((batch, size, lanes.submit(run, batch)))
                while flying:
                    first, _, future = flying.popleft()
                    yield first, future.result()
            finally:  # an error, or a caller that stops: what has not begun need not
                for _, _, future in flying:
                    future.cancel()

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
        if self._binds:
            return self._run_bound(feed)
        vectors: NDArray[np.float32] = self._session.run([OUTPUT], feed, self._run_options)[0]
        return vectors

    def _run_bound(self, feed: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """Run with the output bound to memory of the host: the engine writes there, and nothing is copied again."""
        binding = self._session.io_binding()
        for name, array in feed.items():
            binding.bind_cpu_input(name, array)
        vectors = np.empty((len(next(iter(feed.values()))), self.dimensions), dtype=np.float32)
        binding.bind_output(OUTPUT, "cpu", 0, np.float32, vectors.shape, vectors.ctypes.data)
        self._session.run_with_iobinding(binding, self._run_options)
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
