"""A sweep on Ray Tune: our trial source behind Tune's searcher, our record behind its callbacks."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from sonar.config import to_dict
from sonar.search.journal import Journal
from sonar.search.prepare import Prepared
from sonar.search.retention import take_offers
from sonar.search.scheduler import HalvingScheduler, scheduler_of
from sonar.search.source import Source
from sonar.search.stopping import StopRequest
from sonar.search.trainable import CHECKPOINT, ENDED, FAILED, PAUSED, trainable

# Of one trial's process, or starts of its workers that failed; after each it begins again from its saved state.
MAX_DEATHS = 3
IDLE_CPU = 0.01  # what a trial holds while its workers hold the rest; Tune refuses 0


class TrialSlots(NamedTuple):
    """What one trial holds of the cluster, and how many fit at once."""

    resources: dict[str, float]
    num_concurrent: int
    threads: int


def plan_slots(num_workers: int, cluster: dict[str, float], max_concurrent: int | None = None) -> TrialSlots:
    """Concurrency from the cluster's resources, so that nested workers can always start.

    Workers of one trial are placed all at once or not at all, so trials never wait for each other's half; Ray Data
    works before the first trial and never within one, so it takes nothing from them.

    Args:
        num_workers: of one trial.
        cluster: resources of the cluster, as Ray names them.
        max_concurrent: an upper limit by the user.

    Raises:
        ValueError: not even one trial fits, or the limit is below 1.
    """
    if max_concurrent is not None and max_concurrent < 1:
        raise ValueError(f"{max_concurrent} trials at a time cannot run; give 1 or more")
    device = "GPU" if cluster.get("GPU", 0) >= 1 else "CPU"
    idle = IDLE_CPU if num_workers > 1 and device == "CPU" else 0.0
    cpus = IDLE_CPU if num_workers > 1 else 1.0  # beside the GPUs
    needs = {device: num_workers + idle} if device == "CPU" else {"GPU": float(num_workers), "CPU": cpus}
    fits = min(int(cluster.get(name, 0) / amount) for name, amount in needs.items())
    if fits < 1:
        needed = " and ".join(f"{amount:g} {name}s" for name, amount in needs.items())
        there = " and ".join(f"{cluster.get(name, 0):g}" for name in needs)
        raise ValueError(
            f"a trial of {num_workers} workers needs {needed}; the cluster has {there}. "
            "Lower training.num_workers or add nodes."
        )
    num_concurrent = min(fits, max_concurrent or fits)
    if num_workers > 1:
        return TrialSlots({"CPU": IDLE_CPU}, num_concurrent, 1)
    if device == "GPU":
        return TrialSlots({"CPU": 1.0, "GPU": 1.0}, num_concurrent, 1)
    threads = int(cluster["CPU"]) // num_concurrent if max_concurrent else 1
    return TrialSlots({"CPU": float(threads)}, num_concurrent, threads)


class Driver(NamedTuple):
    """The driver's side of a sweep.

    Attributes:
        source: gives the trials and takes their results.
        journal: gets what the running trials report.
        stop: once it says yes no trial is begun and running ones save their state and end; it travels to them.
        on_event: called after everything that happens and while waiting.
    """

    source: Source
    journal: Journal
    stop: StopRequest
    on_event: Callable[[], None]


def tune_trials(driver: Driver, prepared: Prepared, folder: Path, slots: TrialSlots) -> None:
    """Run the trials of a driver's source on the connected Ray cluster until there are no more or it is stopping.

    Args:
        driver: where trials come from and what hears of them.
        prepared: what all trials share.
        folder: of the sweep; trial folders lie in `trials/`.
        slots: resources and concurrency.
    """
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Tune's would kill running trials; ours lets them save
    scheduler = scheduler_of(driver.journal, _numbers)
    run_here = partial(
        trainable,
        prepared=prepared,
        folder=str(folder.resolve()),
        threads=slots.threads,
        is_stopping=driver.stop,
    )
    tuner = tune.Tuner(
        tune.with_resources(run_here, slots.resources),
        tune_config=tune.TuneConfig(
            search_alg=_SourceSearcher(driver),
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=slots.num_concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder.resolve()),
            callbacks=[_JournalCallback(driver, scheduler, folder.resolve() / "trials")],
            failure_config=tune.FailureConfig(max_failures=MAX_DEATHS),
            verbose=0,
        ),
    )
    tuner.fit()


class _SourceSearcher(Searcher):
    """Tune's searcher interface over a `Source`; results go through the callback, which knows the reasons."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self._driver: Driver | None = driver

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_driver": None}  # Tune pickles its searcher; the journal is our state

    def suggest(self, trial_id: str) -> Any:
        assert self._driver is not None
        suggestion = None if self._driver.stop() else self._driver.source.suggest()
        if suggestion is None:
            return Searcher.FINISHED
        return {"trial_id": suggestion.trial_id, "config": to_dict(suggestion.config)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: `_JournalCallback` tells the source."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the journal is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class _JournalCallback(tune.Callback):
    """Writes what trials do into the journal and tells the source how they ended."""

    def __init__(self, driver: Driver, scheduler: HalvingScheduler | None, trials: Path) -> None:
        self._source, self._journal, self._stop, self._on_event = driver
        self._scheduler, self._trials = scheduler, trials

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks; the journal is our state

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self._on_event()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._journal.append("started", trial_id=trial.config["trial_id"])

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        metrics = _numbers(result)
        if ENDED not in result and metrics:
            self._journal.append(
                "reported",
                trial_id=trial.config["trial_id"],
                step=int(result.get("step", 0)),
                metrics=metrics,
            )
            self._take_offers(trial)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._take_offers(trial)
        trial_id, result = trial.config["trial_id"], trial.last_result
        given_up = self._scheduler.reason(trial_id) if self._scheduler else None
        if PAUSED in result:
            self._pause(trial_id, result[PAUSED])
        elif FAILED in result:
            self._source.fail(trial_id, result[FAILED])
        elif given_up is not None and CHECKPOINT not in result:
            self._source.prune(trial_id, given_up, _numbers(result))
        else:
            self._source.tell(trial_id, _numbers(result), result.get(CHECKPOINT, ""))
            if self._scheduler:
                self._scheduler.on_told(trial_id)
        self._on_event()

    def _pause(self, trial_id: str, reason: str) -> None:
        self._journal.append("paused", trial_id=trial_id, reason=reason)
        if not self._stop():  # nobody asked, so the storage is full, and the other trials would find no room either
            self._stop.ask(f"a storage without room ({reason})")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._take_offers(trial)
        self._source.fail(trial.config["trial_id"], f"given up after {MAX_DEATHS + 1} starts: {_reason(trial)}")
        self._on_event()

    def _take_offers(self, trial: Trial) -> None:
        trial_id = trial.config["trial_id"]
        take_offers(self._journal, trial_id, self._trials / trial_id)


_TUNE_KEYS = {"step", "timestamp", "time_this_iter_s", "time_total_s", "time_since_restore", "pid",
              "iterations_since_restore", "training_iteration", "done"}  # fmt: skip


def _numbers(result: dict[str, Any]) -> dict[str, float]:
    """Our metrics among what Tune puts beside them."""
    return {
        name: float(value)
        for name, value in result.items()
        if name not in _TUNE_KEYS and isinstance(value, int | float) and not isinstance(value, bool)
    }


def _reason(trial: Trial) -> str:
    """Last line of the trial's traceback. Tune copies its error file to the storage later, so the local one is read."""
    path = Path(trial.error_file) if trial.error_file else None
    lines = path.read_text(encoding="utf-8").strip().splitlines() if path and path.is_file() else []
    return lines[-1].strip() if lines else "the trial ended without a reason"
