"""The front of a finished sweep re-evaluated over seeds: repeats through the same door, in the same journal."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import ray

from sonar.config import from_dict
from sonar.experiment import TrialConfig
from sonar.search.journal import Journal
from sonar.search.nodes import check_storage_is_shared
from sonar.search.prepare import Sources, prepare, read_baseline
from sonar.search.progress import Say
from sonar.search.reevaluation import (
    ReevalConfig,
    Reevaluation,
    Standing,
    front_and_neighbours,
    next_to_repeat,
    repeats_by_trial,
)
from sonar.search.repeat_source import RepeatSource
from sonar.search.repeats import REEVAL, Repeat, next_repeat, seed_noise
from sonar.search.retention import Retention
from sonar.search.run import JOURNAL_FILE, ray_session, read_sweep
from sonar.search.source import Source
from sonar.search.sweep_audit import audit_sweep
from sonar.search.tuner import plan_slots, tune_trials


class Outcome(NamedTuple):
    """What a re-evaluation came to.

    Attributes:
        standings: of the front and its neighbours, by rising mean forgetting.
        num_pairs: of candidates of different trials.
        num_settled: of them.
        end_reason: why no further repeat was launched.
    """

    standings: list[Standing]
    num_pairs: int
    num_settled: int
    end_reason: str


@dataclass(frozen=True, kw_only=True)
class RerunOptions:
    """Where repeats run.

    Attributes:
        ray: as of `RunOptions`.
        max_concurrent: repeats at a time; None: as many as fit.
    """

    ray: str = "auto"
    max_concurrent: int | None = None


def reevaluate(folder: Path, config: ReevalConfig, options: RerunOptions, say: Say) -> Outcome:
    """Repeat the front and its neighbours until every pair is settled, the seeds or the hours are spent.

    Calling it again goes on where it was: repeats that are there are not run again.

    Raises:
        FileNotFoundError: the folder holds no sweep, or its audio is gone.
        ValueError: nothing to repeat, or the noise of the sweep cannot be measured.
        JournalBusy: a driver is at work on the sweep.
    """
    settings = read_sweep(folder).settings
    base = from_dict(TrialConfig, settings["config"])
    given = settings["provenance"]["sources"]
    sources = Sources(given["domain"], given["data"], tuple(given["prior"]))
    with Journal(folder / JOURNAL_FILE) as journal, ray_session(options.ray):
        check_storage_is_shared(folder.parent)
        slots = plan_slots(base.training.num_workers, ray.cluster_resources(), options.max_concurrent)
        prepared = prepare(base, sources, folder.parent, say)
        journal.append("resumed")
        retention = Retention(journal, folder, keep_all=True)

        def run(source: Source) -> None:
            tune_trials(source, journal, prepared, folder, slots, retention.update)

        if seed_noise(journal.state) is None:
            audit_sweep(journal, config.seeds, folder, prepared.baseline, run, say)
        chooser = Chooser(journal, Reevaluation(folder, read_baseline(prepared.baseline), config), say)
        run(RepeatSource(journal, REEVAL, chooser))
        return chooser.outcome()


class Chooser:
    """Whom to repeat next, from the journal as it is when asked."""

    def __init__(
        self, journal: Journal, found: Reevaluation, say: Say, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Of a sweep whose noise is known; `clock` gives seconds, from now on."""
        self._journal, self._found, self._config, self._say, self._clock = journal, found, found.config, say, clock
        self._began = clock()
        noise = seed_noise(journal.state)
        assert noise is not None
        self.keys = front_and_neighbours(journal.state, noise.sigma)
        self._end_reason: str | None = None

    def __call__(self) -> Repeat | None:
        """The next repeat, or None once all is settled or spent."""
        state = self._journal.state
        pairs = self._found.pairs(state, self.keys)
        settled = sum(pair.settled for pair in pairs)
        trial_id = next_to_repeat(pairs, repeats_by_trial(state, self.keys), self._config)
        hours = (self._clock() - self._began) / 3600
        if trial_id is None:
            spent = f"{self._config.seeds} repeats of every trial of an open pair are spent"
            self._end_reason = "every pair is settled" if settled == len(pairs) else spent
            return None
        if self._config.budget_hours is not None and hours >= self._config.budget_hours:
            self._end_reason = f"{hours:.2f} of {self._config.budget_hours:g} hours are spent"
            return None
        repeat = next_repeat(state, trial_id)
        self._say(f"{settled}/{len(pairs)} pairs settled; repeating {trial_id} under seed {repeat.seed}")
        return repeat

    def outcome(self) -> Outcome:
        """How the candidates stand, after `__call__` gave None."""
        state = self._journal.state
        pairs = self._found.pairs(state, self.keys)
        settled = sum(pair.settled for pair in pairs)
        return Outcome(
            self._found.standings(state, self.keys), len(pairs), settled, self._end_reason or "it was stopped"
        )
