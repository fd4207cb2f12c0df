"""The path from files to a measured search, step by step, each on top of what an earlier run has done.

What is done is asked of the database and of the exported models, never of the ledger: so a run that was killed anywhere
goes on, and a second one finds nothing left to do.
"""

import fcntl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console

from pgembed.cli.common import console, errors, processors, seconds, show_progress
from pgembed.cli.quickstart.announcement import Announcement
from pgembed.cli.quickstart.decision import GATE_METRIC, decide
from pgembed.cli.quickstart.ledger import Ledger, Step
from pgembed.cli.quickstart.plan import STANDARD_LIBRARY_EXCLUDES, Plan, choose_files, standard_library
from pgembed.cli.quickstart.samples import COUNT, STANDARD_LIBRARY, sample_queries
from pgembed.cli.triplets import print_triplet
from pgembed.config import settings
from pgembed.corpus.ingest import ingest
from pgembed.corpus.sources import find_or_add, known_paths
from pgembed.corpus.walk import Candidate, candidates
from pgembed.db import migrations
from pgembed.db.connection import connect
from pgembed.db.dsn import describe, resolve
from pgembed.db.embedded import EmbeddedServer
from pgembed.db.sql import query
from pgembed.encoders.artefact import Manifest
from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.errors import CorpusError, EvaluationError, PgembedError
from pgembed.evaluation.beir import read_beir
from pgembed.evaluation.dataset import Dataset
from pgembed.evaluation.evaluate import evaluate_dataset
from pgembed.evaluation.held_out import HeldOut, read_held_out
from pgembed.evaluation.store import Comparison, Evaluation, compare_evaluations
from pgembed.mining.pairs import find_pairs
from pgembed.mining.triplets import are_stale, counts, held_out_anchors, held_out_paths, refresh_triplets, sample
from pgembed.training.export import export_encoder, intact_export, resolve_spec
from pgembed.training.loop import train
from pgembed.training.options import TrainingOptions
from pgembed.vectors.generations import Generation, activate, active_id, get_generation
from pgembed.vectors.reindex import ReindexResult, reindex
from pgembed.vectors.search import Hit, encoder_of, search

# Fewer triplets teach little, and more than a few rounds over the same ones teach them by heart.
_LEAST_TRIPLETS, _MOST_ROUNDS = 200, 4
_HITS = 3

Connection = psycopg.Connection[Any]


@dataclass
class Outcome:
    """What a run came to."""

    source: str
    plan: Plan
    seconds: float = 0.0
    """Of this run; what earlier runs took is in the steps."""
    steps: dict[str, Step] = field(default_factory=dict)
    chunks: int = 0
    triplets: int = 0
    comparisons: list[Comparison] = field(default_factory=list)
    """Base against fine-tuned: the held-out code first, then each data set from outside."""
    verdict: str = ""
    generation: Generation | None = None
    """The one that answers searches at the end."""
    searches: list[tuple[str, list[Hit]]] = field(default_factory=list)
    is_embedded: bool = True


class Quickstart:
    """One run over one folder of code."""

    def __init__(
        self,
        path: Path | None,
        plan: Plan,
        *,
        base: str = "minilm",
        dsn: str | None = None,
        datasets: Sequence[Path] = (),
        quiet: bool = False,
    ) -> None:
        self.is_standard_library = path is None
        self.root = standard_library() if path is None else path.expanduser().resolve()
        self.exclude = STANDARD_LIBRARY_EXCLUDES if path is None else ()
        self.plan = plan
        self.base = base
        resolve_spec(base)  # a name that is none, and a broken data set, must not cost the way to where they are used
        self.given_dsn = dsn
        self.outside = [read_beir(folder) for folder in datasets]
        self.out: Console = errors if quiet else console
        self.quiet = quiet
        self.progress = show_progress()
        identity = "\0".join([str(self.root), plan.name, base, describe(resolve(dsn)) if dsn is not None else ""])
        self.folder = settings().home / "quickstart"
        self.ledger = Ledger.open(self.folder / f"{sha256(identity.encode()).hexdigest()[:16]}.json")
        self.outcome = Outcome(self.root.name, plan, is_embedded=dsn is None)
        self.number = 0

    def run(self) -> Outcome:
        """Go the path, and return what it came to.

        Raises:
            PgembedError: a step failed, or another quickstart is at work. What was done is kept.
        """
        started = time.monotonic()
        with self._only_one():
            files = candidates(self.root, exclude=self.exclude)
            if not files:
                raise CorpusError(f"There is no file of code in {self.root}.", remedy="Give another folder.")
            self._announce(files)
            dsn = self._start()
            with connect(dsn, vectors=True, access="session") as conn:
                self._ingest(conn, files)
                self._mine(conn)
                self._show_triplets(conn)
                base = self._export("export the base model", self.base, settings().models_dir / Path(self.base).name)
                datasets = list(self._datasets(conn))
                before = self._measure(conn, "measure the base model", self._encoder(base), datasets)
                tuned = self._fine_tune(conn) if before else None
                if tuned is None:
                    self._answer_with_base(conn, dsn, base)
                else:
                    filled = self._reindex(dsn, tuned.path)
                    after = self._measure(conn, "measure the fine-tuned model", self._encoder(tuned), datasets)
                    self.outcome.comparisons = [compare_evaluations(a, b) for a, b in zip(before, after, strict=True)]
                    self._decide(conn, dsn, base, filled)
                self._search(conn)
        self.outcome.plan, self.outcome.steps = self.plan, self.ledger.steps
        self.outcome.seconds = time.monotonic() - started
        return self.outcome

    # ------------------------------------------------------------------ before the first step

    @contextmanager
    def _only_one(self) -> Iterator[None]:
        """Hold the quickstart's lock; the kernel lets it go when this process ends, however it does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PgembedError(
                    "Another quickstart is at work here.", remedy="Wait for it, or stop it; it can be gone on with."
                ) from None
            yield

    def _announce(self, files: list[Candidate]) -> None:
        announcement = Announcement(str(self.root), files, self.plan, self.ledger, self.outside)
        self.plan = self.ledger.plan = announcement.plan
        for line in announcement.lines():
            self._say(line)
        if self.given_dsn is None and settings().dsn:
            self._say('PGEMBED_DSN is set, but the quickstart uses its own server; to use yours: --dsn "$PGEMBED_DSN"')
        self._say("Ctrl-C at any point loses nothing: the same command goes on.")

    # ------------------------------------------------------------------ the steps

    @contextmanager
    def _step(self, name: str, unit: str = "") -> Iterator[Step]:
        self.number += 1
        self._say(f"\n[bold]{self.number:>2}  {name}[/]", markup=True)
        with self.ledger.step(name, unit) as step:
            yield step
        rate = f", {step.rate:,.0f} {unit}/s" if step.rate and not step.skipped else ""
        took = "done before" if step.skipped else f"{seconds(step.seconds)}{rate}"
        self._say(f"    {step.note + '; ' if step.note else ''}{took}")

    def _start(self) -> str:
        with self._step("start the server") as step:
            if self.given_dsn is not None:
                dsn = resolve(self.given_dsn)
            else:
                server = EmbeddedServer(settings().postgres_dir)
                dsn = server.start()
                step.note = f"{server.server_version()} on {server.data_dir}"
            applied = migrations.upgrade(dsn)
            schema = f"revisions {', '.join(applied)} applied" if applied else "the schema is there"
            step.note = f"{step.note}; {schema}".removeprefix("; ")
        return dsn

    def _ingest(self, conn: Connection, files: list[Candidate]) -> None:
        with self._step("ingest", "chunks") as step:
            _, name = find_or_add(conn, self.root, None)
            sizes = {item.path: item.size_bytes for item in files}
            wanted = choose_files(sizes, held_out_paths(conn, name, sizes), self.plan.corpus_bytes)
            wanted |= known_paths(conn, self.root)  # a longer run's files stay when a shorter one follows
            report = ingest(
                conn,
                self.root,
                exclude=self.exclude,
                select=wanted.__contains__,
                jobs=processors(),
                progress=self.progress,
            )
            step.skipped = not (report.files_read or report.files_deleted)
            step.amount = report.chunks_new
            left_out, partly = sum(report.left_out.values()), sum(report.partly_read.values())
            step.note = f"{report.chunks:,} chunks at {report.locations:,} places"
            if left_out or partly:
                step.note += f"; {left_out:,} items left out and {partly:,} partly read: see pgembed.rejected_items"
        self.outcome.source, self.outcome.chunks = report.source, report.chunks
        row = conn.execute(query("count_chunks")).fetchone()
        others = (row[0] if row else 0) - report.chunks
        if others > 0:
            self._say(f"    The database holds {others:,} chunks of other sources, which are embedded as well.")

    def _mine(self, conn: Connection) -> None:
        with self._step("pairs and triplets", "chunks") as step:
            report = find_pairs(conn, jobs=processors(), progress=self.progress)
            if changed := bool(report.chunks) or are_stale(conn):
                refresh_triplets(conn, self.progress)
            found = counts(conn)
            self.outcome.triplets = sum(count.triplets for count in found)
            step.skipped, step.amount = not changed, report.chunks
            step.note = f"{report.pairs:,} pairs at Jaccard 0.5 and above; {self.outcome.triplets:,} triplets"

    def _show_triplets(self, conn: Connection) -> None:
        if self.quiet:
            return
        for kind, limit in (("docstring", 2), ("code", 1)):
            for triplet in sample(conn, kind=kind, split="train", limit=limit):
                print_triplet(triplet, lines=8)

    def _export(self, name: str, source: str | Path, out: Path, label: str | None = None) -> Manifest:
        with self._step(name) as step:
            there = intact_export(out)
            manifest = export_encoder(source, out, name=label, progress=self.progress)
            step.skipped = there is not None and there.fingerprint == manifest.fingerprint
            step.note = (
                f"{manifest.spec.name}, {manifest.model_path.stat().st_size / 1e6:.0f} MB, "
                f"licence {manifest.spec.licence}; least cosine to torch {manifest.parity['least_cosine']:.6f}"
            )
        return manifest

    def _datasets(self, conn: Connection) -> Iterator[Dataset]:
        try:
            yield read_held_out(conn, HeldOut("test", self.plan.evaluation_documents, self.plan.evaluation_queries))
        except EvaluationError as error:
            self.outcome.verdict = (
                f"Fine-tuning was left out, since nothing could tell whether it helped: {error.message} "
                "The base model answers."
            )
            return
        yield from self.outside

    def _measure(self, conn: Connection, name: str, encoder: OnnxEncoder, datasets: list[Dataset]) -> list[Evaluation]:
        if not datasets:
            return []
        with self._step(name, "texts") as step:
            found = [evaluate_dataset(conn, encoder, dataset, progress=self.progress) for dataset in datasets]
            step.skipped = all(evaluation.reused for evaluation in found)
            step.amount = sum(e.documents + e.queries for e in found if not e.reused)
            step.note = "; ".join(
                f"{e.dataset}: {GATE_METRIC} {e.mean(GATE_METRIC):.3f} "
                f"on {e.queries:,} queries, {e.documents:,} documents"
                for e in found
            )
        return found

    def _fine_tune(self, conn: Connection) -> Manifest | None:
        """Train and export; None where there is too little to train on."""
        available = sum(c.triplets for c in counts(conn) if c.kind == "docstring" and c.split == "train")
        if available < _LEAST_TRIPLETS:
            self.outcome.verdict = (
                f"Fine-tuning was left out: {available:,} docstring triplets are too few to learn from "
                f"(at least {_LEAST_TRIPLETS}). The base model answers."
            )
            return None
        steps = min(self.plan.training_steps, -(-_MOST_ROUNDS * available // self.plan.training_batch))
        options = TrainingOptions(steps=steps, batch=self.plan.training_batch)
        with self._step("fine-tune", "triplets") as step:
            result = train(conn, options, base=self.base, progress=self.progress)
            step.skipped, step.amount = result.already_done, result.triplets
            step.note = (
                f"{result.steps} steps of {options.batch} from {result.available:,} triplets, {result.precision}"
            )
            if result.first_loss is not None and result.last_loss is not None:
                step.note += f"; loss {result.first_loss:.3f} → {result.last_loss:.3f}"
        label = result.checkpoint.parent.name
        return self._export(
            "export the fine-tuned model", result.checkpoint, settings().models_dir / label, f"run-{result.run_id}"
        )

    def _reindex(self, dsn: str, artefact: Path, name: str = "reindex --batch 512") -> ReindexResult:
        with self._step(name, "chunks") as step:
            result = reindex(dsn, artefact, batch=512, progress=self.progress)
            step.skipped = not (result.embedded or result.index_seconds)
            step.amount, step.rate = result.rows, result.chunks_per_second
            step.note = f"generation {result.generation_id}: {result.rows:,} vectors"
            if result.index_recall is not None:
                step.note += f"; {result.probes} of {result.lists} lists probed for recall@10 {result.index_recall:.3f}"
            if not step.skipped:
                step.note += f"; embedding {seconds(result.embedding_seconds)}, index {seconds(result.index_seconds)}"
        return result

    # ------------------------------------------------------------------ which model answers

    def _decide(self, conn: Connection, dsn: str, base: Manifest, tuned: ReindexResult) -> None:
        """Activate the fine-tuned generation if it measures better than the base, and than what answers now."""
        decision = decide(self.outcome.comparisons, self._rival(conn, self.outcome.comparisons[0]))
        self.outcome.verdict = decision.verdict
        if decision.answers == "base":
            self._answer_with_base(conn, dsn, base)
        elif decision.answers == "tuned":
            self._activate(conn, tuned.generation_id)
        else:
            active = get_generation(conn, active_id(conn) or tuned.generation_id)
            # it has no vectors yet of what was ingested in this run
            self._reindex(dsn, Path(active.onnx_path), "reindex the active generation")
            self.outcome.generation = get_generation(conn, active.id)

    def _rival(self, conn: Connection, own: Comparison) -> Evaluation | None:
        """Measure the active generation's encoder where it is a third one, on the same held-out code."""
        active = active_id(conn)
        if active is None:
            return None
        generation = get_generation(conn, active)
        if generation.encoder_id in (own.baseline.encoder_id, own.candidate.encoder_id):
            return None
        try:
            encoder = encoder_of(generation)
        except PgembedError as error:
            self._say(f"The active generation {active} cannot be measured, and is no rival: {error.message}")
            return None
        dataset = read_held_out(conn, HeldOut("test", self.plan.evaluation_documents, self.plan.evaluation_queries))
        return self._measure(conn, "measure the active model", encoder, [dataset])[0]

    def _answer_with_base(self, conn: Connection, dsn: str, base: Manifest) -> None:
        self._say(self.outcome.verdict)
        self._activate(conn, self._reindex(dsn, base.path, "reindex with the base model").generation_id)

    def _activate(self, conn: Connection, generation_id: int) -> None:
        with self._step("activate") as step:
            step.skipped = active_id(conn) == generation_id
            activate(conn, generation_id)
            step.note = f"generation {generation_id} answers searches"
        self.outcome.generation = get_generation(conn, generation_id)

    def _search(self, conn: Connection) -> None:
        generation = self.outcome.generation
        assert generation is not None  # noqa: S101 - every way through the decision sets it
        encoder = encoder_of(generation)
        source = self.outcome.source
        queries = (
            list(STANDARD_LIBRARY)
            if self.is_standard_library
            else sample_queries(held_out_anchors(conn, source, limit=COUNT))
        )
        with self._step("search", "searches") as step:
            for text in queries:
                hits = search(conn, encoder, text, k=_HITS, source=source, generation_id=generation.id)
                self.outcome.searches.append((text, hits))
            step.amount = len(self.outcome.searches)
            step.note = f"{step.amount} searches in generation {generation.id}"

    # ------------------------------------------------------------------ small things

    def _encoder(self, manifest: Manifest) -> OnnxEncoder:
        return OnnxEncoder.load(manifest.path, bulk=True)

    def _say(self, text: str, *, markup: bool = False) -> None:
        self.out.print(text, markup=markup)
