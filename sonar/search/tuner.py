"""A sweep on Ray Tune: our trial source behind Tune's searcher, our record behind its callbacks."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.search import Searcher

from sonar.config import from_dict, to_dict
from sonar.experiment import TrialConfig
from sonar.search.journal import Journal
from sonar.search.prepare import Prepared
from sonar.search.retention import take_offers
from sonar.search.source import Source
from sonar.search.trial import run_trial
from sonar.search.watch import CURVE_TERMS
from sonar.train.loop import StepReport

REPORT_INTERVAL_S = 2.0  # of one trial's metrics to the driver; points of its curve go at once
IDLE_CPU = 0.01  # what a trial holds while its workers hold the rest; Tune refuses 0


class TrialSlots(NamedTuple):
    """What one trial holds of the cluster, and how many fit at once."""

    resources: dict[str, float]
    num_concurrent: int
    threads: int


def plan_slots(num_workers: int, cluster: dict[str, float], max_concurrent: int | None = None) -> TrialSlots:
    """Concurrency from the cluster's resources, so that nested workers can always start.

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
    fits = int(cluster.get(device, 0) / (num_workers + idle))
    if fits < 1:
        raise ValueError(
            f"a trial of {num_workers} workers needs {num_workers + idle:g} {device}s; "
            f"the cluster has {cluster.get(device, 0):g}. Lower training.num_workers or add nodes."
        )
    num_concurrent = min(fits, max_concurrent or fits)
    if num_workers > 1:
        return TrialSlots({"CPU": IDLE_CPU}, num_concurrent, 1)
    if device == "GPU":
        return TrialSlots({"CPU": 1.0, "GPU": 1.0}, num_concurrent, 1)
    threads = int(cluster["CPU"]) // num_concurrent if max_concurrent else 1
    return TrialSlots({"CPU": float(threads)}, num_concurrent, threads)


def tune_trials(
    source: Source, journal: Journal, prepared: Prepared, folder: Path, slots: TrialSlots,
    on_event: Callable[[], None],
) -> None:  # fmt: skip
    """Run every trial of `source` on the connected Ray cluster.

    Args:
        source: gives the trials and takes their results.
        journal: gets what the running trials report.
        prepared: what all trials share.
        folder: of the sweep; trial folders lie in `trials/`.
        slots: resources and concurrency.
        on_event: called in the driver after everything that happens and while waiting.
    """
    trainable = partial(_trainable, prepared=prepared, folder=str(folder.resolve()), threads=slots.threads)
    tuner = tune.Tuner(
        tune.with_resources(trainable, slots.resources),
        tune_config=tune.TuneConfig(
            search_alg=_SourceSearcher(source),
            num_samples=-1,
            max_concurrent_trials=slots.num_concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder.resolve()),
            callbacks=[_JournalCallback(source, journal, folder.resolve() / "trials", on_event)],
            verbose=0,
        ),
    )
    tuner.fit()


def _trainable(config: dict[str, Any], *, prepared: Prepared, folder: str, threads: int) -> None:
    """One trial in its own process."""
    torch.set_num_threads(threads)
    trial_config = from_dict(TrialConfig, config["config"])
    sent = 0.0

    def report(step: StepReport) -> None:
        nonlocal sent
        if time.monotonic() - sent >= REPORT_INTERVAL_S or step.metrics.keys() & CURVE_TERMS:
            sent = time.monotonic()
            tune.report(step.by_stage() | {"step": step.step})

    callbacks = (TuneReportCallback(),) if trial_config.training.num_workers > 1 else ()
    trial_folder = Path(folder) / "trials" / config["trial_id"]
    result = run_trial(trial_config, prepared, trial_folder, report, callbacks, keep_candidates=True)
    tune.report({**result.metrics, "checkpoint_path": result.checkpoint})


class _SourceSearcher(Searcher):
    """Tune's searcher interface over a `Source`; results go through the callback, which knows the reasons."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source: Source | None = source

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None}  # Tune pickles its searcher; the journal is our state

    def suggest(self, trial_id: str) -> Any:
        assert self._source is not None
        suggestion = self._source.suggest()
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

    def __init__(self, source: Source, journal: Journal, folder: Path, on_event: Callable[[], None]) -> None:
        self._source, self._journal, self._folder, self._on_event = source, journal, folder, on_event

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
        if "checkpoint_path" not in result and metrics:
            self._journal.append(
                "reported",
                trial_id=trial.config["trial_id"],
                step=int(result.get("step", 0)),
                metrics=metrics,
            )
            self._take_offers(trial)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._take_offers(trial)
        result = trial.last_result
        checkpoint = result.get("checkpoint_path", "")
        self._source.tell(trial.config["trial_id"], _numbers(result), checkpoint)
        self._on_event()

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._take_offers(trial)
        self._source.fail(trial.config["trial_id"], _reason(trial))
        self._on_event()

    def _take_offers(self, trial: Trial) -> None:
        trial_id = trial.config["trial_id"]
        take_offers(self._journal, trial_id, self._folder / trial_id)


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
