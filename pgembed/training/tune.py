"""A search for options that suit this code: short trainings, proposed by Optuna and compared on validation triplets."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Any

import psycopg

from pgembed.errors import TrainingError
from pgembed.progress import SILENT, Progress
from pgembed.training.data import CODE_SHARE
from pgembed.training.options import TrainingOptions
from pgembed.training.runs import ValidationMetrics
from pgembed.training.study import finished, importance, next_trial, open_study
from pgembed.training.trial import Bench, Measured

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

SHARES = (0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
BATCHES = (8, 16, 24, 32, 48, 64)
NEGATIVES = ("mined", "semi-hard", "hardest", "in-batch")
# A trial is measured four times: it may be given up after the first quarter.
_LOOKS = 4
_SEARCHED = {"batch", "loss", "negatives", "code_share", "learning_rate", "margin", "interpolate", "evaluate_every"}


@dataclass(frozen=True)
class Budget:
    """When the search ends: what comes first."""

    trials: int = 20
    """Of the study: those of earlier and of other processes count."""
    minutes: float | None = None
    """Of this process. A trial that has begun is brought to its end."""


@dataclass(frozen=True)
class Tried:
    """One trial."""

    number: int
    state: str
    """complete, pruned, fail, running or waiting."""
    score: float | None
    """Of a pruned one, what was measured last."""
    options: dict[str, Any]
    measured: Measured | None
    """At the best share."""
    seconds: float | None
    error: str | None


@dataclass(frozen=True)
class TuningResult:
    """What a study has come to."""

    study: str
    base: Measured
    best: Tried | None
    options: TrainingOptions | None
    """Those of the best trial."""
    importance: dict[str, float]
    shares: dict[float, float]
    """Mean score of all complete trials at each share of interpolation."""
    trials: list[Tried]


def search(
    conn: psycopg.Connection,
    bench: Bench,
    options: TrainingOptions,
    *,
    name: str = "pgembed",
    budget: Budget | None = None,
    progress: Progress = SILENT,
) -> TuningResult:
    """Try options until the budget is spent; a study that is there already goes on.

    `options` holds what all trials share, and what the first one tries.

    Raises:
        TrainingError: the study of this name is about something else.
    """
    budget = budget or Budget()
    if options.code_share is None:
        options = replace(options, code_share=CODE_SHARE if bench.code else 0.0)
    ends = monotonic() + 60 * (budget.minutes or float("inf"))
    shared = {key: value for key, value in options.hyperparameters().items() if key not in _SEARCHED | {"precision"}}
    filters = {**options.filters(), "view": options.view, "seed": options.seed}
    with open_study(conn, name, {**bench.identity, **shared, **filters}, _asked(options)) as study:
        with progress.task("tuning", budget.trials, "trials") as task:
            done = len(finished(study))
            task.advance(min(done, budget.trials))
            while monotonic() < ends:
                with next_trial(conn, study, most=budget.trials, seed=options.seed) as trial:
                    if trial is None:
                        break
                    progress.say(_carry_out(study, trial, bench, options))
                task.advance(len(finished(study)) - done)  # other processes' are among them
                done = len(finished(study))
        return _result(study, bench, options)


def _propose(trial: "Trial", options: TrainingOptions, bench: Bench) -> dict[str, Any]:
    """Return what a trial is to try."""
    known = [size for size in BATCHES if size <= bench.available]
    found = {
        "batch": trial.suggest_categorical("batch", sorted({*known, options.batch})),
        "negatives": trial.suggest_categorical("negatives", NEGATIVES),
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 5e-4, log=True),
        # of the in-batch loss it decides nothing; it is asked for all the same, so that trials compare by every option
        "margin": trial.suggest_float("margin", 0.05, 0.5),
    }
    if bench.code:
        found["code_share"] = trial.suggest_float("code_share", 0.0, 0.5, step=0.125)
    return found


def _asked(options: TrainingOptions) -> dict[str, Any]:
    """Return what a trial of these options would be proposed."""
    negatives = "in-batch" if options.loss == "in-batch" else options.negatives
    names = ("batch", "learning_rate", "margin", "code_share")
    return {"negatives": negatives, **{name: getattr(options, name) for name in names}}


def _options(proposed: dict[str, Any], options: TrainingOptions) -> TrainingOptions:
    """Return the options of a trial that was proposed this."""
    negatives, share = proposed["negatives"], proposed.get("code_share", 0.0)
    in_batch = negatives == "in-batch"
    changed: dict[str, Any] = {
        "loss": "in-batch" if in_batch else "triplet",
        "negatives": options.negatives if in_batch else negatives,
        # a share of a small batch can be less than a triplet
        "code_share": share if round(proposed["batch"] * share) else 0.0,
    }
    return replace(options, **{**proposed, **changed})


def _carry_out(study: "Study", trial: "Trial", bench: Bench, options: TrainingOptions) -> str:
    """Train, measure, and tell the study; return a line about it."""
    from optuna import TrialPruned
    from optuna.trial import TrialState

    began = monotonic()
    proposed = _propose(trial, options, bench)
    said = ", ".join(f"{name} {_short(value)}" for name, value in proposed.items())

    def look(found: ValidationMetrics) -> None:
        if not found.step:
            return
        trial.report(found.ndcg, found.step)
        if found.step < options.steps and trial.should_prune():
            raise TrialPruned

    every = -(-options.steps // _LOOKS)
    try:
        measured = bench.run(replace(_options(proposed, options), evaluate_every=every), validated=look)
    except TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        return f"Trial {trial.number}: given up, below the median of the others ({said})"
    except TrainingError as error:  # such as a loss that is not finite: these options cannot be trained with
        trial.set_user_attr("error", error.message)
        study.tell(trial, state=TrialState.FAIL)
        return f"Trial {trial.number}: failed ({said}): {error.message.splitlines()[0]}"
    best = _best(measured)
    trial.set_user_attr("measured", [asdict(one) for one in measured])
    trial.set_user_attr("seconds", monotonic() - began)
    study.tell(trial, best.score)
    against = f"the base {bench.base.score:.4f}"
    return f"Trial {trial.number}: {best.score:.4f} at interpolate {best.share}, {against} ({said})"


def _result(study: "Study", bench: Bench, options: TrainingOptions) -> TuningResult:
    tried = [_tried(trial) for trial in study.get_trials(deepcopy=False)]
    complete = [one for one in tried if one.state == "complete"]
    best = max(complete, key=lambda one: one.score or 0.0, default=None)
    chosen = None
    if best is not None and best.measured is not None:
        chosen = replace(_options(best.options, options), interpolate=best.measured.share)
    by_share: dict[float, list[float]] = {}
    for trial in study.get_trials(deepcopy=False):
        for one in _measured(trial):
            by_share.setdefault(one.share, []).append(one.score)
    shares = {share: sum(scores) / len(scores) for share, scores in sorted(by_share.items())}
    return TuningResult(study.study_name, bench.base, best, chosen, importance(study), shares, tried)


def _tried(trial: "FrozenTrial") -> Tried:
    measured = _measured(trial)
    best = _best(measured) if measured else None
    last = max(trial.intermediate_values, default=None)
    score = best.score if best is not None else None if last is None else trial.intermediate_values[last]
    about = trial.user_attrs
    return Tried(
        trial.number, trial.state.name.lower(), score, trial.params, best, about.get("seconds"), about.get("error")
    )


def _measured(trial: "FrozenTrial") -> list[Measured]:
    return [Measured(**one) for one in trial.user_attrs.get("measured", [])]


def _best(measured: Sequence[Measured]) -> Measured:
    """Return the best share; of equals the one that keeps most of the base."""
    return max(measured, key=lambda one: (one.score, -one.share))


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
