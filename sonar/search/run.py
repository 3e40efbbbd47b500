"""One sweep from audio to front: prepare, search on Ray Tune, publish; resumable from its journal."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray

from sonar.config import ConfigError, to_dict
from sonar.provenance import provenance
from sonar.search.journal import Journal, SweepState, read_journal, replay
from sonar.search.nodes import check_storage_is_shared
from sonar.search.prepare import Sources, prepare
from sonar.search.progress import ProgressLine, Say
from sonar.search.retention import Retention
from sonar.search.searcher import TrialSource
from sonar.search.source import Source
from sonar.search.space import Sweep, describe_space
from sonar.search.sweep_audit import audit_sweep
from sonar.search.tuner import plan_slots, tune_trials
from sonar.search.warm import take_warm_start

JOURNAL_FILE = "journal.jsonl"
MEASURED = ("plasticity", "forgetting_rate")  # the axes of a front, and the objectives of a sweep
# On resume; the audio of the provenance and the folder of the warm start may not.
MAY_CHANGE = ("num_trials", "budget_hours", "converge", "audit_seeds", "provenance", "warm_start")
BEFORE: dict[str, Any] = {"sampler": "tpe"}  # of journals that do not name it
PUBLISH_INTERVAL_S = 5.0


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How and where a sweep runs.

    Attributes:
        sources: where the audio is.
        storage: folder that every node sees; the sweep lies in `storage/NAME`, shared work in `storage/cache`.
        ray: "auto" joins a running cluster or starts one; "local" starts one; else an address.
        max_concurrent: trials at a time; None: as many as fit.
        seed: of the sampler.
        resume: continue a sweep that this storage holds.
        keep_all: keep the checkpoints that are on no front too.
    """

    sources: Sources
    storage: Path = Path("runs")
    ray: str = "auto"
    max_concurrent: int | None = None
    seed: int = 0
    resume: bool = False
    keep_all: bool = False


def run_sweep(sweep: Sweep, options: RunOptions, say: Say, publish: Callable[[SweepState], None]) -> SweepState:
    """Run or resume a sweep to its end.

    Args:
        sweep: what is searched.
        options: how and where.
        say: hears lines of progress.
        publish: called with the state after changes, at most every few seconds; must return soon.

    Returns:
        The state of the finished sweep.

    Raises:
        ConfigError: the storage holds a sweep of this name that is not to be resumed, or was made otherwise.
        ValueError, FileNotFoundError: from `prepare`, no trial fits the cluster, or a node does not see the storage.
    """
    folder = options.storage / sweep.name
    with Journal(folder / JOURNAL_FILE) as journal:
        settings = _check_resumable(journal, sweep, options, folder)
        with ray_session(options.ray):
            check_storage_is_shared(options.storage)
            slots = plan_slots(sweep.base.training.num_workers, ray.cluster_resources(), options.max_concurrent)
            prepared = prepare(sweep.base, options.sources, options.storage, say)
            if journal.state.settings:
                journal.append("resumed")
            else:  # only now: a sweep whose audio was not there has not begun
                journal.append("sweep_created", **settings)
            source = TrialSource(sweep, journal, options.seed)
            for note in source.notes:
                say(note)
            retention = Retention(journal, folder, keep_all=options.keep_all)
            retention.clean()
            progress = ProgressLine(sweep.num_trials + len(sweep.anchors) + sweep.audit_seeds, say)
            published = 0.0

            def on_event() -> None:
                nonlocal published
                retention.update()
                progress.update(journal.state)
                if time.monotonic() - published >= PUBLISH_INTERVAL_S:
                    publish(journal.state)
                    published = time.monotonic()

            def run(source: Source) -> None:
                tune_trials(source, journal, prepared, folder, slots, on_event)

            if sweep.audit_seeds:
                audit_sweep(journal, sweep.audit_seeds, folder, prepared.baseline, run, say)
            run(source)
            if source.end_reason is not None:  # else Tune was stopped
                journal.append("ended", reason=source.end_reason)
                say(f"the search ended: {source.end_reason}")
            publish(journal.state)
    _refuse_empty(journal.state)
    return journal.state


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
    if set(sweep.objectives) != set(MEASURED):
        raise ConfigError(f"objectives are {', '.join(sweep.objectives)}; a trial measures {' and '.join(MEASURED)}")
    settings: dict[str, Any] = {
        "name": sweep.name,
        "domain": sweep.domain,
        "config": to_dict(sweep.base),
        "space": describe_space(sweep.space),
        "objectives": dict(sweep.objectives),
        "forgetting_limit": sweep.forgetting_limit,
        "num_trials": sweep.num_trials,
        "anchors": sweep.anchors,
        "sampler": sweep.sampler,
        "budget_hours": sweep.budget_hours,
        "converge": None if sweep.converge is None else asdict(sweep.converge),
        "warm_start": None,
        "audit_seeds": sweep.audit_seeds,
        "seed": options.seed,
        "provenance": {"sources": options.sources._asdict(), **provenance()},
    }
    known = journal.state.settings
    if known and not options.resume:
        raise ConfigError(f"{folder} already holds a sweep; give --resume to continue it, or another --name")
    same = json.loads(json.dumps(settings))  # as the journal gives it back
    before = BEFORE | known
    changed = [key for key in same if known and key not in MAY_CHANGE and before[key] != same[key]]
    if known and known["provenance"]["sources"] != same["provenance"]["sources"]:
        changed.append("audio")
    if known and ((known.get("warm_start") or {}).get("folder")) != sweep.warm_start:
        changed.append("warm_start")
    if changed:
        raise ConfigError(
            f"{folder} began with another {', '.join(changed)}; resume it as it was, or give another --name"
        )
    if sweep.warm_start and not known:
        earlier = read_sweep(Path(sweep.warm_start))
        settings["warm_start"] = take_warm_start(sweep, options.sources._asdict(), earlier)._asdict()
    return settings
