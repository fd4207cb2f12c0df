"""The training loop: every step from the last checkpoint on, on every process of the run alike."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from pgembed.errors import TrainingError
from pgembed.progress import Progress
from pgembed.training.checkpoint import Setting, State, load_step, newest_step, save_best, save_step
from pgembed.training.data import DataSummary, Triplet, batches, sampler_state
from pgembed.training.distributed import Processes
from pgembed.training.encode import TextEncoder
from pgembed.training.gradient import accumulate_gradients
from pgembed.training.journal import Journal
from pgembed.training.mixture import Weights, mixed, trainable
from pgembed.training.model import EncoderModel
from pgembed.training.optimiser import clip_gradients, learning_rate, make_adam, set_rate
from pgembed.training.options import TrainingOptions
from pgembed.training.runs import StepMetrics, ValidationMetrics
from pgembed.training.validation import ValidationSet, is_due, is_improvement, rank, validate
from pgembed.training.watch import UpdateMeter

BAD_STEPS_IN_A_ROW = 3


@dataclass(frozen=True)
class Work:
    """What a run works with."""

    reader: psycopg.Connection | None
    """Sees the triplets as they were when the run began. The first process has it, and sends the others each batch."""
    journal: Journal
    among: Processes
    options: TrainingOptions
    data: DataSummary
    held: ValidationSet | None
    model: EncoderModel
    base: Weights
    """The trainable weights before the first step."""
    bf16: bool
    setting: Setting
    folder: Path
    progress: Progress
    validated: Callable[[ValidationMetrics], None] = lambda _: None
    """Told of every validation."""


def take_steps(work: Work) -> State:
    """Take every step from the last checkpoint on; return how far the run has come.

    Dropout stays off. So gradients can be checked by finite differences, a text encoded twice has one vector, and a
    resumed run ends with the same weights, to the bit, as an uninterrupted one.
    """
    options, model, journal = work.options, work.model, work.journal
    encode = TextEncoder(model.spec, max_tokens=options.max_tokens)
    parameters = list(trainable(model).values())
    optimiser = make_adam(parameters, options.learning_rate, weight_decay=options.weight_decay)
    state, note = load_step(work.folder, model, optimiser, _setting(work, newest_step(work.folder)), work.among)
    if work.among.broadcast(state.step) != state.step:
        raise TrainingError(
            f"Process {work.among.rank} does not find the checkpoint that the first one goes on from in {work.folder}.",
            remedy="PGEMBED_HOME must be a folder that the machines of a run share.",
        )
    if state.step:
        work.progress.say(f"Going on after step {state.step}. {note}".rstrip())
    journal.open(after=state.step)
    if not state.step:
        state = _validate(work, encode, state)
    meter = UpdateMeter(parameters)
    bad: list[list[Triplet]] = []
    stream = _stream(work, state.step)
    with work.progress.task("training", options.steps, "steps") as task:
        task.advance(state.step)
        while state.step < options.steps and not _is_stale(state, options):
            began = time.monotonic()
            batch = next(stream)
            rate = _rate(options, state.step)
            set_rate(optimiser, rate)
            optimiser.zero_grad(set_to_none=True)
            value = accumulate_gradients(model, encode, batch, options, bf16=work.bf16, among=work.among)
            norm = clip_gradients(parameters, options.clip_norm)
            if math.isfinite(value.loss) and math.isfinite(norm):
                meter.start()
                optimiser.step()
                bad = []
                metrics = StepMetrics(
                    step=state.step + 1,
                    loss=value.loss,
                    gradient_norm=norm,
                    learning_rate=rate,
                    zero_loss_share=value.zero_share,
                    triplets_per_second=len(batch) / (time.monotonic() - began),
                    anchor_cosine=value.spread.mean_cosine,
                    anchor_deviation=value.spread.deviation,
                    update_ratio=meter.ratio(),
                )
                for alarm in journal.step(metrics):
                    work.progress.say(f"Alarm at step {metrics.step}: {alarm.name}: {alarm.says}.")
                task.note(
                    f"loss {value.loss:.4f}, gradient norm {norm:.2f}, {value.zero_share:.0%} right by the margin"
                )
            else:
                bad.append(batch)
                if len(bad) == BAD_STEPS_IN_A_ROW:
                    raise _not_finite(state.step, bad)
            state = replace(state, step=state.step + 1, skipped=state.skipped + bool(bad))
            task.advance()
            last = state.step == options.steps
            if state.step % options.checkpoint_every == 0 or last or is_due(state.step, options):
                # the metrics first: those of steps that a checkpoint does not hold are forgotten at a resume
                journal.write()
            if is_due(state.step, options):
                state = _validate(work, encode, state)
            # after the last step the final weights follow at once
            if state.step % options.checkpoint_every == 0 and not last:
                setting = _setting(work, state.step)
                save_step(work.folder, state, model, optimiser, setting, keep=options.keep_last, among=work.among)
    journal.close()
    return state


def _stream(work: Work, first_step: int) -> Iterator[list[Triplet]]:
    """Yield each step's batch: the first process reads it, the others are sent it, and so all have the same."""
    if work.among.size == 1:
        assert work.reader is not None  # noqa: S101 - the only process is the first
        yield from batches(work.reader, work.options, work.data, first_step=first_step)
        return
    read = None
    if work.reader is not None:
        read = batches(work.reader, work.options, work.data, first_step=first_step)
    while True:
        yield work.among.broadcast(None if read is None else next(read))


def _setting(work: Work, step: int) -> Setting:
    """Return what a checkpoint of `step` must say."""
    rate = _rate(work.options, step) if step < work.options.steps else None
    sampler = sampler_state(work.options, work.data, step)
    return replace(work.setting, position={"sampler": sampler, "next rate": rate})


def _rate(options: TrainingOptions, step: int) -> float:
    return learning_rate(
        step,
        steps=options.steps,
        peak=options.learning_rate,
        warmup=options.warmup_share,
        schedule=options.schedule,
    )


def _validate(work: Work, encode: TextEncoder, state: State) -> State:
    """Measure the model as it would be delivered now; keep its weights where they are the best so far."""
    if work.held is None:
        return state
    with mixed(work.model, work.base, work.options.interpolate):
        found = validate(work.model, encode, work.held, work.options, step=state.step, bf16=work.bf16, among=work.among)
    # what follows from it must follow on every process
    found = work.among.broadcast(found)
    work.journal.validation(found)
    work.progress.say(_said(found))
    work.validated(found)
    # step 0 is the base: what is delivered is the best of what was trained, and whether that is better is said
    if (by := work.options.keeps) is None or not state.step:
        return state
    if not is_improvement(found, state.best_rank, by):
        return replace(state, stale=state.stale + 1)
    save_best(work.folder, work.model, state.step, among=work.among)
    return replace(state, best_step=state.step, best_rank=rank(found, by), stale=0)


def _is_stale(state: State, options: TrainingOptions) -> bool:
    return options.patience is not None and state.stale >= options.patience


def _said(found: ValidationMetrics) -> str:
    what = "the base" if found.step == 0 else f"after step {found.step}"
    loss = "not finite" if found.loss is None else f"{found.loss:.4f}"
    return (
        f"Validation, {what}: loss {loss}, nDCG@10 {found.ndcg:.3f}, MRR@10 {found.mrr:.3f} ({found.queries} queries)"
    )


def _not_finite(step: int, bad: list[list[Triplet]]) -> TrainingError:
    ordinals = ", ".join(str(row.ordinal) for batch in bad for row in batch)
    return TrainingError(
        f"The loss or a gradient was not finite in {len(bad)} steps in a row, up to step {step + 1}. "
        f"Their triplets have the ordinals {ordinals}.",
        remedy="Look at them (SELECT * FROM pgembed.triplets WHERE ordinal = …), lower --learning-rate, "
        "or use --precision fp32.",
    )
