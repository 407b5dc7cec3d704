"""Trials of a study, drawn, run and counted by any number of processes that share its storage.

A trial belongs to the process that draws it, which says so in the study every few seconds. One that falls silent was killed: its trial is
marked failed, counts no more, and is drawn again with the same values, so that its training goes on where it stopped.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import psutil
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from reelrank.options import digest
from reelrank.pipelines.tuning.options import PrunerOptions, SamplerOptions, TuningParameters
from reelrank.pipelines.tuning.space import Values, suggest
from reelrank.pipelines.tuning.task import Task, readable
from reelrank.pipelines.tuning.training import Outcome, TrainingFailed, Watch

log = logging.getLogger(__name__)
BEAT_S = 5.0
JOURNAL, SQLITE = "journal:///", "sqlite:///"
HERE = socket.gethostname()
# what a trial says of itself
HOST, PID, SEEN, FOLDER, ORIGIN, ERROR, SECONDS, EPOCH, SAME_AS = "host", "pid", "seen", "folder", "origin", "error", "seconds", "best_epoch", "same_as"  # fmt: skip
DEFAULTS, RESUMED = "defaults", "killed before"
Train = Callable[[Path, Values, Watch], Outcome | None]
"""Folder, values and watch to the validation metrics; None if it was given up."""


class StudyUnreachable(ConnectionError):
    """The storage of the study cannot be reached; what was finished lies there."""


class NoTrial(RuntimeError):
    """No trial of the study was trained to its end."""


def open_storage(address: str) -> BaseStorage:
    """The storage at an address.

    Raises:
        StudyUnreachable: nothing answers there, or its driver is not installed.
    """
    try:
        with reachable(address):
            if address.startswith(JOURNAL):
                file = Path(address.removeprefix(JOURNAL))
                file.parent.mkdir(parents=True, exist_ok=True)
                return JournalStorage(JournalFileBackend(str(file)))
            if address.startswith(SQLITE):
                Path(address.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
                return RDBStorage(address, engine_kwargs={"connect_args": {"timeout": 60}})
            return RDBStorage(address, engine_kwargs={"pool_pre_ping": True})
    except StudyUnreachable:
        raise
    except (ImportError, NoSuchModuleError) as error:
        raise StudyUnreachable(
            f"tuning.storage {shown(address)} needs a driver that is not installed ({error}); "
            "for PostgreSQL: pip install 'reelrank[postgres]' and postgresql+psycopg://…"
        ) from error
    except (ArgumentError, OSError) as error:
        raise StudyUnreachable(
            f"tuning.storage {shown(address)} cannot be opened: {error}"
        ) from error


@contextmanager
def reachable(address: str) -> Iterator[None]:
    """Say what to do when the storage fails.

    Raises:
        StudyUnreachable: it did.
    """
    try:
        yield
    except (DBAPIError, StorageInternalError) as error:
        reason = str(getattr(error, "orig", None) or error.__cause__ or error).strip().splitlines()
        raise StudyUnreachable(
            f"tuning.storage {shown(address)} cannot be reached ({reason[0] if reason else error!r}). Nothing is lost: finished trials lie there, "
            "and the same command goes on with them, and with the trainings that were under way, once it answers"
        ) from error


def shown(address: str) -> str:
    """An address without its password."""
    try:
        return make_url(address).render_as_string(hide_password=True)
    except ArgumentError:
        return address.partition("@")[2] or address


def open_study(
    task: Task, tuning: TuningParameters, storage: BaseStorage | None = None
) -> optuna.Study:
    """The task's study, made if it is new, with the defaults as its first trial."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with reachable(tuning.storage):
        study = optuna.create_study(
            storage=storage or open_storage(tuning.storage),
            sampler=make_sampler(tuning.sampler, 0),
            pruner=make_pruner(tuning.pruner),
            study_name=task.study,
            direction="maximize",  # larger is better, as in every training loop
            load_if_exists=True,
        )
        study.enqueue_trial(task.defaults(), user_attrs={ORIGIN: DEFAULTS}, skip_if_exists=True)
    return study


def make_sampler(options: SamplerOptions, number: int) -> BaseSampler:
    """How the values of trial ``number`` are drawn: two processes never draw the same."""
    seed = options.seed + number
    if options.kind == "random":
        return RandomSampler(seed=seed)
    # one parameter at a time: its random state may be set after a trial has its number
    return TPESampler(seed=seed, n_startup_trials=options.startup_trials, multivariate=False, constant_liar=True)  # fmt: skip


def make_pruner(options: PrunerOptions) -> BasePruner:
    """When a trial is given up."""
    match options.kind:
        case "median":
            return MedianPruner(options.startup_trials, options.warm_up_epochs)
        case "successive_halving":
            return SuccessiveHalvingPruner(
                min_resource=options.first_epochs, reduction_factor=options.reduction
            )
        case "none":
            return NopPruner()


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial is one of ``n_trials``: finished, given up, running, or ended by an error of its own; not if it was killed."""
    if trial.state == TrialState.FAIL:
        return ERROR in trial.user_attrs
    return trial.state != TrialState.WAITING


@dataclass
class Search:
    """Runs trials until the study has enough.

    Attributes:
        study: shared.
        task: what is tuned.
        tuning: block of parameters.
        folder: of this study's trainings.
        train: runs one.
    """

    study: optuna.Study
    task: Task
    tuning: TuningParameters
    folder: Path
    train: Train
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)

    def missing(self) -> int:
        """Trials that the study lacks."""
        self.recover()
        return max(0, self.tuning.n_trials - sum(map(counts, self._trials())))

    def run(self) -> None:
        """Draw and run trials, ``workers`` at a time, until ``n_trials`` count.

        Raises:
            StudyUnreachable: the storage fell silent.
            TrainingFailed: the defaults cannot be trained.
        """
        with reachable(self.tuning.storage), ThreadPoolExecutor(self.tuning.workers) as pool:
            futures = [pool.submit(self._work) for _ in range(self.tuning.workers)]
            try:
                for future in as_completed(futures):
                    future.result()
            finally:
                self._stop.set()

    def recover(self) -> None:
        """Give back the trials of processes that were killed."""
        with reachable(self.tuning.storage):
            for trial in self._trials():
                if trial.state == TrialState.RUNNING and self._is_lost(trial):
                    log.info("trial %d was killed: its values are tried again", trial.number)
                    self._give_back(trial)

    def _work(self) -> None:
        while not self._stop.is_set():
            self.recover()
            trial = self._claim()
            if trial is None:
                return
            self._carry_out(trial)

    def _claim(self) -> optuna.Trial | None:
        """The next trial with its values; None if the study has enough."""
        most = self.tuning.n_trials
        with self._lock:
            if sum(map(counts, self._trials())) >= most:
                return None
            trial = self.study.ask()
            if sum(counts(t) for t in self._trials() if t.number < trial.number) >= most:
                self.study.tell(trial, state=TrialState.FAIL)  # another process was faster
                return None
            for key, value in {HOST: HERE, PID: os.getpid(), SEEN: time.time()}.items():
                trial.set_user_attr(key, value)
            self.study.sampler = make_sampler(self.tuning.sampler, trial.number)
            suggest(trial, self.task.space)
            if FOLDER not in trial.user_attrs:
                trial.set_user_attr(FOLDER, f"{trial.number:04d}-{digest(trial.params)[:6]}")
        return trial

    def _carry_out(self, trial: optuna.Trial) -> None:
        frozen = self._frozen(trial)
        if (twin := self._twin(frozen)) is not None:
            trial.set_user_attr(SAME_AS, twin.number)
            trial.set_user_attr(EPOCH, twin.user_attrs.get(EPOCH))
            self.study.tell(trial, twin.value)
            return
        values = readable(self.task, frozen.params)
        log.info("trial %d: %s", trial.number, ", ".join(f"{p}={_short(v)}" for p, v in values.items()))  # fmt: skip
        watching, begun = _Watching(trial, self._stop), time.monotonic()
        is_default = frozen.user_attrs.get(ORIGIN) == DEFAULTS
        try:
            found = self.train(self.folder / str(frozen.user_attrs[FOLDER]), values, watching)
        except TrainingFailed as error:
            if is_default:
                self._give_back(self._frozen(trial))
                raise
            log.warning("trial %d failed: %s", trial.number, error)
            trial.set_user_attr(ERROR, str(error)[-1500:])
            self.study.tell(trial, state=TrialState.FAIL)
            return
        except BaseException:
            self._stop.set()
            raise  # the trial stays; when its process is gone, another takes it up
        if found is None and not watching.is_pruned:
            self._give_back(self._frozen(trial))
            return
        trial.set_user_attr(SECONDS, round(time.monotonic() - begun, 1))
        if found is None:
            log.info("trial %d: given up after epoch %d", trial.number, watching.n_reported)
            self.study.tell(trial, state=TrialState.PRUNED)
            return
        watching.report(found.metric)
        trial.set_user_attr(EPOCH, found.epoch)
        self.study.tell(trial, found.value)
        log.info("trial %d: %s %.4g", trial.number, self.task.options.metric, found.value)

    def _twin(self, trial: FrozenTrial) -> FrozenTrial | None:
        """A finished trial with the same values: the same seed gives the same metric."""
        own = (t for t in self._trials() if t.state == TrialState.COMPLETE)
        return next((t for t in own if t.params == trial.params), None)

    def _give_back(self, trial: FrozenTrial) -> None:
        """Mark a trial failed, once, and have its values tried again in the same folder."""
        try:
            self.study.tell(trial.number, state=TrialState.FAIL)
        except (ValueError, UpdateFinishedTrialError):
            return  # another process was faster
        kept = {key: trial.user_attrs[key] for key in (FOLDER,) if key in trial.user_attrs}
        origin = trial.user_attrs.get(ORIGIN, RESUMED)
        params = trial.params or trial.system_attrs.get("fixed_params", {})
        if set(params) == set(self.task.space):
            self.study.enqueue_trial(params, user_attrs={**kept, ORIGIN: origin})

    def _is_lost(self, trial: FrozenTrial) -> bool:
        """Whether the process of a running trial is gone."""
        seen = trial.user_attrs.get(SEEN)
        if seen is None:  # drawn this moment, or killed at that moment
            begun = trial.datetime_start
            seen = begun.timestamp() if begun else 0.0
        elif trial.user_attrs.get(HOST) == HERE and not _is_alive(int(trial.user_attrs[PID])):
            return True
        return bool(time.time() - float(seen) > self.tuning.lost_after_s)

    def _trials(self) -> Sequence[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _frozen(self, trial: optuna.Trial) -> FrozenTrial:
        return next(t for t in self._trials() if t.number == trial.number)


class _Watching:
    """Hands a training's epochs to the study, says that it is alive, and asks whether to go on."""

    def __init__(self, trial: optuna.Trial, stop: threading.Event) -> None:
        self.is_pruned = False
        self.n_reported = 0
        self._trial, self._stop = trial, stop
        self._beaten = time.monotonic()

    def __call__(self, metric: Sequence[float]) -> bool:
        if self._stop.is_set():
            return False
        if time.monotonic() - self._beaten > BEAT_S:
            self._trial.set_user_attr(SEEN, time.time())
            self._beaten = time.monotonic()
        for epoch in range(self.n_reported + 1, len(metric) + 1):
            self.report(metric[:epoch])
            if self._trial.should_prune():
                self.is_pruned = True
                return False
        return True

    def report(self, metric: Sequence[float]) -> None:
        """Tell the study of epochs that it does not know yet."""
        for epoch in range(self.n_reported + 1, len(metric) + 1):
            self._trial.report(metric[epoch - 1], epoch)
            self.n_reported = epoch


def _is_alive(pid: int) -> bool:
    """Whether a process still runs: one that ended but that nobody waited for (a container's first process may not) does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
