"""A training run from end to end. Reads the triplet view; writes `training_runs`, its metrics and a checkpoint folder.

A run is what it was told and what it read. The same again goes on where it was interrupted, or, when it is finished,
is not done twice. The steps themselves are in `steps.py`.

Of several processes the first does all of this (`train`); the others (`follow`) are sent what they need, take the steps
with it, and touch neither database nor disk but to load the base and a checkpoint.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import torch

from pgembed.encoders.folder import folder_spec
from pgembed.encoders.registry import register_encoder
from pgembed.encoders.spec import EncoderSpec
from pgembed.encoders.weights import fingerprint, fingerprint_here, make_ready
from pgembed.errors import TrainingError
from pgembed.progress import SILENT, Progress
from pgembed.training.board import require_tensorboard
from pgembed.training.checkpoint import Setting, State, load_best, remove_leftovers, remove_steps, save_final
from pgembed.training.data import DataSummary, batch_size, settled, snapshot, summarise
from pgembed.training.determinism import deterministic
from pgembed.training.distributed import ALONE, Processes
from pgembed.training.export import resolve_spec
from pgembed.training.journal import Journal
from pgembed.training.lora import add_adapters, merge_adapters, require_lora
from pgembed.training.mixture import Weights, copy_weights, mix, set_weights, whole_weights
from pgembed.training.model import EncoderModel, load_model
from pgembed.training.objective import check_widths
from pgembed.training.options import TrainingOptions
from pgembed.training.precision import fastest_attention, resolve_precision
from pgembed.training.recompute import recompute_layers
from pgembed.training.revision import code_identity
from pgembed.training.runs import (
    Told,
    TrainingResult,
    find_run,
    finish_run,
    first_and_last_loss,
    insert_run,
    running,
    stored_validations,
)
from pgembed.training.sharding import shard
from pgembed.training.steps import Work, take_steps
from pgembed.training.towers import Attention
from pgembed.training.validation import ValidationSet, compare, read_validation


@dataclass(frozen=True)
class Plan:
    """What the first process tells the others of a run."""

    run_id: int
    options: TrainingOptions
    precision: str
    data: DataSummary
    held: ValidationSet | None
    setting: Setting
    folder: Path


def train(
    conn: psycopg.Connection,
    options: TrainingOptions,
    *,
    base: str | Path = "minilm",
    fresh: bool = False,
    tensorboard: Path | None = None,
    progress: Progress = SILENT,
    among: Processes = ALONE,
) -> TrainingResult:
    """Fine-tune `base` (a preset, or a folder) on the view's triplets, and return where the result is.

    An interrupted run with the same options, base and data goes on from its last checkpoint; `fresh` makes a new one.
    `tensorboard` is a folder that gets one of its own for the run. `among` says where it computes, and with which other
    processes: they call `follow`.

    Raises:
        TrainingError: there are no triplets, a checkpoint does not fit, another process trains this run, or the loss
            was not finite in three steps in a row.
        EncoderError: the base cannot be loaded.
        MissingExtra: an option needs a library that is not installed.
    """
    started = time.monotonic()
    spec = resolve_spec(base)
    check(options, spec, tensorboard)
    folders = make_ready(spec, progress)
    base_fingerprint = fingerprint(spec, folders)
    base_encoder_id = register_encoder(conn, spec, base_fingerprint)
    precision = resolve_precision(options.precision, device=among.device)
    code = code_identity()
    with snapshot(conn) as reader:
        options = settled(reader, options)
        data = summarise(reader, options)
        held = read_validation(reader, options)
        _need_validation(options, held)
        held_fingerprint = None if held is None else held.fingerprint
        told = Told(options, precision, data, held_fingerprint, base_encoder_id)
        found = None if fresh else find_run(conn, told)
        if isinstance(found, TrainingResult):
            progress.say(f"Run {found.run_id} did this already: {found.checkpoint}")
            among.broadcast(_NOTHING)
            return found
        run_id = found or insert_run(conn, told, code["revision"])
        progress.say(
            f"Run {run_id}: {options.steps} steps of {options.batch} from {data.triplets + data.code:,} triplets, "
            f"{precision}{_where(among)}"
        )
        identity = {
            "data": data.fingerprint,
            "validation": held_fingerprint,
            "base": base_fingerprint,
            "seed": options.seed,
            **options.hyperparameters(),
            "precision": precision,
        }
        with running(conn, run_id) as folder:
            remove_leftovers(folder)
            plan = Plan(run_id, options, precision, data, held, Setting(identity, code, {}), folder)
            among.broadcast([plan])
            journal = Journal(conn, run_id, options, None if tensorboard is None else tensorboard / folder.name)
            state, model = _carry_out(plan, spec, folders, reader, journal, among, progress)
            checkpoint = save_final(folder, model, {**identity, **code, "run": run_id, "steps": state.step})
            tuned = folder_spec(checkpoint)
            encoder_id = register_encoder(conn, tuned, fingerprint_here(tuned))
            result = _result(conn, plan, state, journal, checkpoint, time.monotonic() - started)
            finish_run(conn, result, encoder_id)
            remove_steps(folder)
    return result


def follow(options: TrainingOptions, *, among: Processes, base: str | Path = "minilm") -> None:
    """Take part in the run that the first process trains with the same options and base.

    Raises:
        TrainingError: they are not the same, or another process ended.
        EncoderError: the base cannot be loaded.
    """
    spec = resolve_spec(base)
    check(options, spec)
    folders = make_ready(spec, SILENT)
    found = fingerprint(spec, folders)
    for plan in among.broadcast(_NOTHING):
        if options.code_share is None:  # which the first process has decided
            options = replace(options, code_share=plan.options.code_share)
        mine = {"options": options, "base": found, **code_identity()}
        theirs = {"options": plan.options, "base": plan.setting.identity["base"], **plan.setting.code}
        if differing := [name for name, value in mine.items() if value != theirs[name]]:
            raise TrainingError(
                f"Process {among.rank} has other {', '.join(differing)} than the first one.",
                remedy="The processes of a run need the same command, code and base.",
            )
        journal = Journal(None, plan.run_id, options)
        _carry_out(plan, spec, folders, None, journal, among, SILENT)


_NOTHING: list[Plan] = []


def _carry_out(
    plan: Plan,
    spec: EncoderSpec,
    folders: list[Path],
    reader: psycopg.Connection | None,
    journal: Journal,
    among: Processes,
    progress: Progress,
) -> tuple[State, EncoderModel]:
    """Take the steps, and return the state and, on the first process, the model as it is to be delivered."""
    options = plan.options
    with deterministic(), seeded(options.seed):
        attention = fastest_attention(plan.precision, options.max_tokens, among.device)
        model = prepare_model(spec, folders, options, attention).to(among.device)
        if among.shards:
            shard(model, among)
        base = copy_weights(model)
        work = Work(
            reader=reader,
            journal=journal,
            among=among,
            options=options,
            data=plan.data,
            held=plan.held,
            model=model,
            base=base,
            bf16=plan.precision == "bf16",
            setting=plan.setting,
            folder=plan.folder,
            progress=progress,
        )
        state = take_steps(work)
        if among.shards:
            trained = whole_weights(model)
            model = prepare_model(spec, folders, options, attention)  # in one piece, and in this machine's memory
            base = copy_weights(model)
            set_weights(model, {name: value.cpu() for name, value in trained.items()})
        if among.is_first:
            _deliver(plan, state, model, base)
    return state, model


def check(options: TrainingOptions, spec: EncoderSpec, tensorboard: Path | None = None) -> None:
    """Check, before anything is done, what the options need of the base and of this installation.

    Raises:
        TrainingError: a Matryoshka width does not fit the base.
        MissingExtra: a library is not installed.
    """
    check_widths(options, spec)
    if options.lora_rank:
        require_lora()
    if tensorboard is not None:
        require_tensorboard()


def prepare_model(
    spec: EncoderSpec, folders: list[Path], options: TrainingOptions, attention: Attention = "sdpa"
) -> EncoderModel:
    """Load the base, as the options want it trained."""
    model = load_model(spec, folders, attention=attention)
    if options.lora_rank:
        add_adapters(model, options.lora_rank, seed=options.seed)
    if options.gradient_checkpointing:
        recompute_layers(model)
    return model


def _deliver(plan: Plan, state: State, model: EncoderModel, base: Weights) -> None:
    """Make the model what the run comes to: the best weights if they are wanted, mixed with the base, and plain."""
    if state.best_step is not None and state.best_step != state.step:
        load_best(plan.folder, model, state)
    mix(model, base, plan.options.interpolate)
    if plan.options.lora_rank:
        merge_adapters(model)


def _result(
    conn: psycopg.Connection, plan: Plan, state: State, journal: Journal, checkpoint: Path, seconds: float
) -> TrainingResult:
    first, last = first_and_last_loss(conn, plan.run_id)
    validation = _validation(conn, plan, state)
    return TrainingResult(
        run_id=plan.run_id,
        checkpoint=checkpoint,
        steps=state.step,
        triplets=state.step * batch_size(plan.options, plan.data),
        available=plan.data.triplets + plan.data.code,
        first_loss=first,
        last_loss=last,
        skipped_steps=state.skipped,
        seconds=seconds,
        precision=plan.precision,
        best_step=state.best_step,
        validation=validation,
        better=None if validation is None else bool(validation["better"]),
        alarms=[asdict(alarm) for alarm in journal.watch.alarms.values()],
    )


def _validation(conn: psycopg.Connection, plan: Plan, state: State) -> dict[str, Any] | None:
    if plan.held is None:
        return None
    steps = {found.step: found for found in stored_validations(conn, plan.run_id)}
    delivered = state.step if state.best_step is None else state.best_step
    return {
        **compare(steps[0], steps[delivered]),
        "seconds": sum(found.seconds for found in steps.values()),
        "course": [[found.step, found.loss, found.ndcg, found.mrr] for found in steps.values()],
    }


def _where(among: Processes) -> str:
    several = "" if among.size == 1 else f", {among.size} processes" + (", weights sharded" if among.shards else "")
    return several + ("" if among.device.type == "cpu" else f", on {torch.cuda.get_device_name(among.device)}")


def _need_validation(options: TrainingOptions, held: ValidationSet | None) -> None:
    if held is None and options.keeps:
        raise TrainingError(
            f"pgembed.{options.view} gives no validation triplets for {options.filters('validation')}: "
            "there is nothing to choose the best weights by.",
            remedy="Leave --patience and --keep-best away, or ingest more code: a share of files is for validation.",
        )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Give torch's generators a state of the run's own while the block runs, and the caller's back afterwards."""
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
        torch.manual_seed(seed)
        yield
