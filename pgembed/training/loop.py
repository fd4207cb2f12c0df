"""The training loop. Reads the triplet view; writes `training_runs`, `training_metrics` and a checkpoint folder.

A run is what it was told and what it read. The same again goes on where it was interrupted, or, when it is finished,
is not done twice.
"""

import math
import time
from pathlib import Path
from typing import Any

import psycopg
import torch

from pgembed import __version__
from pgembed.encoders.folder import folder_spec
from pgembed.encoders.registry import register_encoder
from pgembed.encoders.weights import fingerprint, locate
from pgembed.errors import TrainingError
from pgembed.progress import SILENT, Progress
from pgembed.training.checkpoint import State, load_step, remove_leftovers, remove_steps, save_final, save_step
from pgembed.training.data import DataSummary, Triplet, batches, snapshot, summarise
from pgembed.training.determinism import deterministic
from pgembed.training.encode import TextEncoder, anchor_text, distinct_texts
from pgembed.training.export import resolve_spec
from pgembed.training.loss import LossValue, allowed_negatives, hardest_negatives, in_batch_loss, triplet_loss
from pgembed.training.model import EncoderModel, load_model
from pgembed.training.optimiser import clip_gradients, learning_rate, make_adam
from pgembed.training.options import TrainingOptions
from pgembed.training.precision import resolve_precision
from pgembed.training.runs import (
    StepMetrics,
    TrainingResult,
    find_run,
    finish_run,
    first_and_last_loss,
    forget_metrics,
    insert_run,
    running,
    store_metrics,
)

BAD_STEPS_IN_A_ROW = 3


def train(
    conn: psycopg.Connection,
    options: TrainingOptions,
    *,
    base: str | Path = "minilm",
    fresh: bool = False,
    progress: Progress = SILENT,
) -> TrainingResult:
    """Fine-tune `base` (a preset, or a folder) on the view's triplets, and return where the result is.

    An interrupted run with the same options, base and data goes on from its last checkpoint; `fresh` makes a new one.

    Raises:
        TrainingError: there are no triplets, a checkpoint does not fit, another process trains this run, or the loss
            was not finite in three steps in a row.
        EncoderError: the base cannot be loaded.
    """
    started = time.monotonic()
    spec = resolve_spec(base)
    folders = [locate(tower) for tower in spec.towers]
    base_fingerprint = fingerprint(spec, folders)
    base_encoder_id = register_encoder(conn, spec, base_fingerprint)
    precision = resolve_precision(options.precision)
    with snapshot(conn) as reader:
        data = summarise(reader, options)
        found = None if fresh else find_run(conn, options, precision, data, base_encoder_id)
        if isinstance(found, TrainingResult):
            progress.say(f"Run {found.run_id} did this already: {found.checkpoint}")
            return found
        run_id = found or insert_run(conn, options, precision, data, base_encoder_id)
        progress.say(
            f"Run {run_id}: {options.steps} steps of {options.batch} from {data.triplets:,} triplets, {precision}"
        )
        identity = {
            "data": data.fingerprint,
            "base": base_fingerprint,
            "seed": options.seed,
            **options.hyperparameters(),
            "precision": precision,
        }
        with running(conn, run_id) as folder, deterministic():
            remove_leftovers(folder)
            model = load_model(spec, folders)
            base_weights = {name: value.clone() for name, value in model.state_dict().items()}
            state = take_steps(conn, reader, run_id, options, data, model, identity, folder, progress)
            about = {**identity, "run": run_id, "pgembed": __version__, "torch": torch.__version__}
            checkpoint = save_final(folder, model, base_weights, share=options.interpolate, about=about)
            tuned = folder_spec(checkpoint)
            encoder_id = register_encoder(conn, tuned, fingerprint(tuned, [locate(tower) for tower in tuned.towers]))
            first, last = first_and_last_loss(conn, run_id)
            result = TrainingResult(
                run_id=run_id,
                checkpoint=checkpoint,
                steps=options.steps,
                triplets=options.steps * min(options.batch, data.triplets),
                available=data.triplets,
                first_loss=first,
                last_loss=last,
                skipped_steps=state.skipped,
                seconds=time.monotonic() - started,
                precision=precision,
            )
            finish_run(conn, result, encoder_id)
            remove_steps(folder)
    return result


def take_steps(
    conn: psycopg.Connection,
    reader: psycopg.Connection,
    run_id: int,
    options: TrainingOptions,
    data: DataSummary,
    model: EncoderModel,
    identity: dict[str, Any],
    folder: Path,
    progress: Progress,
) -> State:
    """Take every step from the last checkpoint on, and return how far the run has come: to its end.

    Dropout stays off. So gradients can be checked by finite differences, and a resumed run needs no random state to
    end with the same weights, to the bit, as an uninterrupted one.
    """
    bf16 = identity["precision"] == "bf16"
    encode = TextEncoder(model.spec, max_tokens=options.max_tokens)
    parameters = list(model.parameters())
    optimiser = make_adam(parameters, options.learning_rate)
    state = load_step(folder, model, optimiser, identity)
    forget_metrics(conn, run_id, after=state.step)
    if state.step:
        progress.say(f"Going on after step {state.step}.")
    metrics: list[StepMetrics] = []
    bad: list[list[Triplet]] = []
    stream = batches(reader, options, data.triplets, first_step=state.step)
    with progress.task("training", options.steps, "steps") as task:
        task.advance(state.step)
        for step in range(state.step, options.steps):
            began = time.monotonic()
            batch = next(stream)
            rate = learning_rate(step, steps=options.steps, peak=options.learning_rate, warmup=options.warmup_share)
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.zero_grad(set_to_none=True)
            value = batch_loss(model, encode, batch, options, bf16=bf16)
            value.loss.backward()
            norm = clip_gradients(parameters, options.clip_norm)
            loss = float(value.loss.detach())
            if math.isfinite(loss) and math.isfinite(norm):
                optimiser.step()
                bad = []
                rate_triplets = len(batch) / (time.monotonic() - began)
                metrics.append(StepMetrics(step + 1, loss, norm, rate, value.zero_share, rate_triplets))
                task.note(f"loss {loss:.4f}, gradient norm {norm:.2f}, {value.zero_share:.0%} right by the margin")
            else:
                bad.append(batch)
                if len(bad) == BAD_STEPS_IN_A_ROW:
                    raise _not_finite(step, bad)
            state = State(step + 1, state.skipped + bool(bad))
            task.advance()
            if state.step % options.checkpoint_every == 0 or state.step == options.steps:
                # the metrics first: those of steps that a checkpoint does not hold are forgotten at a resume
                store_metrics(conn, run_id, metrics)
                metrics = []
                # after the last step the final weights follow at once
                if state.step < options.steps:
                    save_step(folder, state, model, optimiser, identity)
    return state


def batch_loss(
    model: EncoderModel, encode: TextEncoder, batch: list[Triplet], options: TrainingOptions, *, bf16: bool = False
) -> LossValue:
    """Return the loss of one batch; each distinct text is encoded once."""
    texts = distinct_texts(batch)
    place = {text: n for n, text in enumerate(texts)}
    vector_ND = encode(model, texts, bf16=bf16)
    anchor_BD = vector_ND[[place[anchor_text(row)] for row in batch]]
    positive_BD = vector_ND[[place["passage", row.positive] for row in batch]]
    negative_BD = vector_ND[[place["passage", row.negative] for row in batch]]
    if options.loss == "triplet" and not options.hardest_in_batch:
        return triplet_loss(anchor_BD, positive_BD, negative_BD, margin=options.margin, kind=options.distance)
    body_MD = torch.cat([positive_BD, negative_BD])
    allowed_BM = allowed_negatives(batch)
    if options.loss == "in-batch":
        return in_batch_loss(anchor_BD, positive_BD, body_MD, allowed_BM, scale=options.scale)
    hardest_BD = hardest_negatives(anchor_BD, body_MD, allowed_BM)
    return triplet_loss(anchor_BD, positive_BD, hardest_BD, margin=options.margin, kind=options.distance)


def _not_finite(step: int, bad: list[list[Triplet]]) -> TrainingError:
    ordinals = ", ".join(str(row.ordinal) for batch in bad for row in batch)
    return TrainingError(
        f"The loss or a gradient was not finite in {len(bad)} steps in a row, up to step {step + 1}. "
        f"Their triplets have the ordinals {ordinals}.",
        remedy="Look at them (SELECT * FROM pgembed.triplets WHERE ordinal = …), lower --learning-rate, "
        "or use --precision fp32.",
    )
