"""A study in Optuna's tables, in a schema of their own of the same Postgres, and who works at which trial.

Optuna has an `alembic_version` too. In `pgembed_tune`, the only schema that its connections see, it meets neither
pgembed's nor the user's.

A process holds its trial by an advisory lock. One that died has lost it: whoever asks next marks that trial as failed
and has its options tried again, once, for they may be what killed it. Optuna's heartbeats would tell after minutes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import psycopg

from pgembed.db.sql import query
from pgembed.errors import MissingExtra, TrainingError

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

# Below the median of so many trials before it one is given up; as many are tried at random before any is proposed.
_TRIALS_TO_LEARN_FROM = 5


def require_optuna() -> None:
    """Check that the library is installed.

    Raises:
        MissingExtra: it is not; the message has the line that installs it.
    """
    if find_spec("optuna") is None:
        raise MissingExtra("tune", "pgembed tune", "there is no optuna")


@contextmanager
def open_study(
    conn: psycopg.Connection, name: str, identity: dict[str, Any], first: dict[str, Any]
) -> Iterator["Study"]:
    """Give the study of this name, made if there is none; `first` is what its first trial is to try.

    Raises:
        TrainingError: it is about something else than `identity`; each part that differs is named.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    dsn, password = conn.info.dsn, conn.info.password or None

    def connect() -> psycopg.Connection:
        opened = psycopg.connect(dsn, password=password)
        opened.execute(query("tuning_search_path"))
        opened.commit()
        return opened

    with _one_at_a_time(conn):
        # asked first: to make it IF NOT EXISTS takes the right to make schemas, even where it exists
        if conn.execute(query("tuning_schema_missing")).fetchone():
            conn.execute(query("tuning_schema"))
        storage = optuna.storages.RDBStorage("postgresql+psycopg://", engine_kwargs={"creator": connect})
    try:
        yield _study(conn, storage, name, identity, first)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _study(
    conn: psycopg.Connection, storage: "RDBStorage", name: str, identity: dict[str, Any], first: dict[str, Any]
) -> "Study":
    import optuna

    with _one_at_a_time(conn):
        is_new = name not in optuna.get_all_study_names(storage)
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_TRIALS_TO_LEARN_FROM),
        )
        if is_new:
            study.set_user_attr("identity", identity)
            # what is the default is tried first: the search ends with nothing worse
            study.enqueue_trial(first)
    before = study.user_attrs["identity"]
    if differing := [part for part in identity if identity[part] != before.get(part)]:
        raise TrainingError(
            f"The study {name!r} is about something else: "
            + "; ".join(f"{part} was {before.get(part)!r} and is {identity[part]!r}" for part in differing)
            + ".",
            remedy="Its scores would not compare. Give another name: --study NAME.",
        )
    return study


@contextmanager
def next_trial(conn: psycopg.Connection, study: "Study", *, most: int, seed: int) -> Iterator["Trial | None"]:
    """Give a trial that is this process's alone while the block runs; None where `most` are finished or at work."""
    from optuna.samplers import TPESampler

    with _one_at_a_time(conn):
        _revive(conn, study)
        trial = None
        # of one reading: a trial that ends between two would be counted in neither
        trials = study.get_trials(deepcopy=False)
        if sum(trial.state.name == "RUNNING" or _is_finished(trial) for trial in trials) < most:
            # another seed each time: a process that begins anew with the same one would propose the same again
            study.sampler = TPESampler(
                seed=seed + 1000 * len(trials),
                n_startup_trials=_TRIALS_TO_LEARN_FROM,
                constant_liar=True,
            )
            trial = study.ask()
            conn.execute(query("tuning_try_trial_lock"), _key(study, trial))
    try:
        yield trial
    finally:
        if trial is not None:
            conn.execute(query("tuning_trial_unlock"), _key(study, trial))


def finished(study: "Study") -> list["FrozenTrial"]:
    """Return the trials that came to an end: with a score, given up, or with options that cannot be trained with."""
    return [trial for trial in study.get_trials(deepcopy=False) if _is_finished(trial)]


def _is_finished(trial: "FrozenTrial") -> bool:
    return trial.state.name in ("COMPLETE", "PRUNED") or "error" in trial.user_attrs


def importance(study: "Study") -> dict[str, float]:
    """Return what part of the score's variance each option explains; empty while that cannot be told.

    Source: Watanabe, Bansal, Hutter, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
    Subspaces", IJCAI 2023. Of Optuna's evaluators it is the one that needs no library besides.
    """
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    scores = {trial.value for trial in finished(study) if trial.state.name == "COMPLETE"}
    if len(scores) < 2 * _TRIALS_TO_LEARN_FROM:
        return {}
    return dict(get_param_importances(study, evaluator=PedAnovaImportanceEvaluator()))


def _revive(conn: psycopg.Connection, study: "Study") -> None:
    """Mark the trials of dead processes as failed, and put what they tried into the queue."""
    from optuna.trial import TrialState

    for number in _at_work(study):
        key = {"study": study.study_name, "number": number}
        if conn.execute(query("tuning_try_trial_lock"), key).fetchone() != (True,):
            continue
        # seen once more: its process may have come to its end, and let go of it, in between
        if (trial := _at_work(study).get(number)) is not None:
            study.tell(number, state=TrialState.FAIL)
            # it may have died before it asked for what was in the queue for it
            params = trial.params or trial.system_attrs.get("fixed_params")
            if params and "again" not in trial.user_attrs:
                study.enqueue_trial(params, user_attrs={"again": number})
        conn.execute(query("tuning_trial_unlock"), key)


def _at_work(study: "Study") -> dict[int, "FrozenTrial"]:
    from optuna.trial import TrialState

    return {trial.number: trial for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))}


def _key(study: "Study", trial: "Trial | FrozenTrial") -> dict[str, Any]:
    return {"study": study.study_name, "number": trial.number}


@contextmanager
def _one_at_a_time(conn: psycopg.Connection) -> Iterator[None]:
    conn.execute(query("tuning_lock"))
    try:
        yield
    finally:
        conn.execute(query("tuning_unlock"))
