"""One sweep from audio to front: prepare, search on Ray Tune, publish; resumable from its journal."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ray

from sonar.config import ConfigError
from sonar.search.candidates import DIRECTIONS
from sonar.search.disk import check_disk, forecast_disk, model_bytes
from sonar.search.journal import Journal, SweepState, read_journal, replay
from sonar.search.nodes import check_storage_is_shared
from sonar.search.placement import PlacementWatch
from sonar.search.prepare import prepare
from sonar.search.progress import ProgressLine, Say
from sonar.search.retention import Retention
from sonar.search.searcher import TrialSource
from sonar.search.settings import RunOptions, settings_of
from sonar.search.source import Source
from sonar.search.space import Sweep
from sonar.search.stopping import StopRequest, signals_abort, signals_drain
from sonar.search.sweep_audit import audit_sweep
from sonar.search.tuner import Driver, plan_slots, tune_trials
from sonar.search.warm import take_warm_start

JOURNAL_FILE = "journal.jsonl"
# On resume; the audio of the provenance may not.
MAY_CHANGE = ("num_trials", "budget_hours", "converge", "audit_seeds", "options", "provenance")
BEFORE: dict[str, Any] = {"sampler": "tpe"}  # of journals that do not name it
PUBLISH_INTERVAL_S = 5.0


class SweepEnd(NamedTuple):
    """How a run of a sweep ended.

    Attributes:
        state: of the sweep.
        stopped_by: who asked it to stop before its end, so that it can be resumed; None where it came to its end.
    """

    state: SweepState
    stopped_by: str | None


def run_sweep(sweep: Sweep, options: RunOptions, say: Say, publish: Callable[[SweepState], None]) -> SweepEnd:
    """Run or resume a sweep to its end, or until it is asked to stop.

    The first SIGINT or SIGTERM, or `sonar sweep stop`, lets running trials save their state; the second aborts.

    Args:
        sweep: what is searched.
        options: how and where.
        say: hears lines of progress.
        publish: called with the state after changes, at most every few seconds; must return soon.

    Raises:
        Aborted: by a signal; the journal holds what a resume needs.
        JournalBusy: another process owns the sweep.
        ConfigError: the storage holds a sweep of this name that is not to be resumed, or was made otherwise.
        ValueError, FileNotFoundError: from `prepare`, no trial fits the cluster, the checkpoints do not fit the disk,
            or a node does not see the storage.
    """
    folder = options.storage / sweep.name
    with Journal(folder / JOURNAL_FILE) as journal:
        if journal.taken_from is not None:
            say(f"taken over from {journal.taken_from}, which ended without giving the sweep back")
        settings = _check_resumable(journal, sweep, options, folder)
        stop = StopRequest(folder)
        stop.withdraw()
        with ray_session(options.ray), signals_abort():
            check_storage_is_shared(options.storage)
            slots = plan_slots(sweep.base.training.num_workers, ray.cluster_resources(), options.max_concurrent)
            prepared = prepare(sweep.base, options.sources, options.storage, say)
            size = model_bytes(Path(prepared.base))
            forecast = forecast_disk(sweep.base, size, sweep.num_runs, slots.num_concurrent, keep_all=options.keep_all)
            check_disk(forecast, folder, say)
            _record_settings(journal, settings)  # only now: a sweep whose audio was not there has not begun
            source = TrialSource(sweep, journal, options.seed)
            for note in source.notes:
                say(note)
            retention = Retention(journal, folder, keep_all=options.keep_all)
            retention.clean()
            progress = ProgressLine(say)
            watch = PlacementWatch(folder / "trials", sweep.base.training.num_workers, say)
            hears = [lambda state: retention.update(), progress.update, watch.look_at]
            on_event = _Listener(journal.state, stop, say, hears, publish)

            def run(source: Source) -> None:
                tune_trials(Driver(source, journal, stop, on_event), prepared, folder, slots)

            with signals_drain(stop):
                audit_sweep(journal, sweep.audit_seeds, folder, prepared.baseline, run, say)
                run(source)
            stopped_by = _end(journal, source, stop, say)
            publish(journal.state)
    if stopped_by is None:
        _refuse_empty(journal.state)
    return SweepEnd(journal.state, stopped_by)


def _end(journal: Journal, source: TrialSource, stop: StopRequest, say: Say) -> str | None:
    """Who asked to stop before there was nothing left to do, None where nothing is; says and records why it ended."""
    is_left = source.end_reason is None or any(not record.is_finished for record in journal.state.trials.values())
    stopped_by = stop.by() if stop() and is_left else None
    stop.withdraw()
    if source.end_reason is not None and stopped_by is None:
        say(f"the search ended: {source.end_reason}")
        if journal.state.end_reason is None:  # else this driver found it ended, and nothing to do
            journal.append("ended", reason=source.end_reason)
    return stopped_by


class _Listener:
    """What the driver does after every event: tells who listens, publishes, says once that it is stopping."""

    def __init__(
        self,
        state: SweepState,
        stop: StopRequest,
        say: Say,
        hears: Sequence[Callable[[SweepState], None]],
        publish: Callable[[SweepState], None],
    ) -> None:
        self._state, self._stop, self._say, self._hears, self._publish = state, stop, say, hears, publish
        self._published_s, self._has_said_stop = 0.0, False

    def __call__(self) -> None:
        for hear in self._hears:
            hear(self._state)
        if self._stop() and not self._has_said_stop:
            self._has_said_stop = True
            self._say(f"stopping, as {self._stop.by()} asks: running trials save their state; Ctrl-C aborts")
        if time.monotonic() - self._published_s >= PUBLISH_INTERVAL_S:
            self._publish(self._state)
            self._published_s = time.monotonic()


def _refuse_empty(state: SweepState) -> None:
    """Raise ValueError when no trial has a result: there is no front to speak of."""
    if not any(record.status == "told" for record in state.trials.values()):
        reasons = "; ".join(f"{record.trial_id}: {record.reason}" for record in list(state.trials.values())[:3])
        raise ValueError(f"no trial of {len(state.trials)} has a result: {reasons}")


def read_sweep(folder: Path) -> SweepState:
    """The state of a sweep from its folder, running or finished.

    Raises:
        FileNotFoundError: the folder holds no sweep.
    """
    path = folder / JOURNAL_FILE
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no sweep (no {JOURNAL_FILE}); name the folder of one, as in runs/bio")
    return replay(read_journal(path))


@contextmanager
def ray_session(address: str) -> Iterator[None]:
    """Join or start Ray as `RunOptions.ray` says, quietly; a Ray that was started here ends with it."""
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "180")  # busy machines
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # its banner ignores verbose=0; the progress line is ours
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    ray.init(address=None if address == "auto" else address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _check_resumable(journal: Journal, sweep: Sweep, options: RunOptions, folder: Path) -> dict[str, Any]:
    """The settings that the journal is to begin with; refuses a journal that began otherwise."""
    if set(sweep.objectives) != set(DIRECTIONS):
        raise ConfigError(f"objectives are {', '.join(sweep.objectives)}; a trial measures {' and '.join(DIRECTIONS)}")
    known = journal.state.settings
    if known and not options.resume:
        raise ConfigError(f"{folder} already holds a sweep; give --resume to continue it, or another --name")
    same = settings_of(sweep, options)
    before = BEFORE | known
    changed = [key for key in same if known and key not in MAY_CHANGE and before.get(key) != same[key]]
    if known and known["provenance"]["sources"] != same["provenance"]["sources"]:
        changed.append("audio")
    if changed:
        raise ConfigError(
            f"{folder} began with another {', '.join(changed)}; resume it as it was, or give another --name"
        )
    if sweep.warm_start and not known:
        earlier = read_sweep(Path(sweep.warm_start))
        same["warm"] = take_warm_start(sweep, options.sources._asdict(), earlier)._asdict()
    return same


def _record_settings(journal: Journal, settings: dict[str, Any]) -> None:
    """Begin the journal with them, or add what a resume has changed of them."""
    known = journal.state.settings
    if not known:
        journal.append("sweep_created", **settings)
        return
    changed = {key: settings[key] for key in MAY_CHANGE[:-1] if settings[key] != known.get(key)}
    if changed:
        journal.append("sweep_changed", **changed)
