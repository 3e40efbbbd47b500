"""The front of a finished sweep re-evaluated over seeds: repeats through the same door, in the same journal."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import ray

from sonar.search.journal import Journal
from sonar.search.nodes import check_storage_is_shared
from sonar.search.prepare import prepare, read_baseline
from sonar.search.progress import Say
from sonar.search.reevaluation import (
    ReevalConfig,
    Reevaluation,
    Standing,
    front_and_neighbours,
    next_to_repeat,
    repeat_counts,
)
from sonar.search.repeat_source import RepeatSource
from sonar.search.repeats import REEVAL, Repeat, audit_noise, next_repeat
from sonar.search.retention import Retention
from sonar.search.run import JOURNAL_FILE, ray_session, read_sweep
from sonar.search.settings import RunOptions, sweep_of
from sonar.search.source import Source
from sonar.search.stopping import StopRequest, signals_abort, signals_drain
from sonar.search.sweep_audit import audit_sweep
from sonar.search.tuner import Driver, plan_slots, tune_trials


class Outcome(NamedTuple):
    """What a re-evaluation came to.

    Attributes:
        standings: of the front and its neighbours, by rising mean forgetting.
        num_pairs: of candidates.
        num_settled: of them.
        end_reason: why no further repeat was launched.
    """

    standings: list[Standing]
    num_pairs: int
    num_settled: int
    end_reason: str


def reevaluate(folder: Path, config: ReevalConfig, options: RunOptions, say: Say) -> Outcome:
    """Repeat the front and its neighbours until every pair is settled, the seeds or the hours are spent.

    Calling it again goes on where it was: repeats that are there are not run again.

    Args:
        folder: of the sweep.
        config: how far.
        options: of the sweep (`options_of`), where its repeats run.
        say: hears what is repeated and why.

    Raises:
        Aborted: by a second signal; the first one lets running repeats save their state.
        FileNotFoundError: the folder holds no sweep, or its audio is gone.
        ValueError: the noise of the sweep cannot be measured, or no trial fits the cluster.
        JournalBusy: a driver is at work on the sweep.
    """
    sweep = sweep_of(read_sweep(folder).settings)
    base, audit_seeds = sweep.base, sweep.audit_seeds or config.seeds
    with Journal(folder / JOURNAL_FILE) as journal, ray_session(options.ray), signals_abort():
        check_storage_is_shared(options.storage)
        slots = plan_slots(base.training.num_workers, ray.cluster_resources(), options.max_concurrent)
        prepared = prepare(base, options.sources, options.storage, say)
        retention, stop = Retention(journal, folder, keep_all=True), StopRequest(folder)
        stop.withdraw()

        def run(source: Source) -> None:
            with signals_drain(stop):
                tune_trials(Driver(source, journal, stop, retention.update), prepared, folder, slots)

        if audit_sweep(journal, audit_seeds, folder, prepared.baseline, run, say) is None:
            raise ValueError("the audit of the noise was stopped; give the command again to go on with it")
        chooser = Chooser(journal, Reevaluation(folder, read_baseline(prepared.baseline), config), say)
        run(RepeatSource(journal, REEVAL, chooser))
        outcome = chooser.outcome()
        if journal.state.end_reason is None and not stop():
            journal.append("ended", reason=f"re-evaluated: {outcome.end_reason}")
        stop.withdraw()
    return outcome


class Chooser:
    """Whom to repeat next, from the journal as it is when asked."""

    def __init__(
        self, journal: Journal, found: Reevaluation, say: Say, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Of a sweep whose noise was audited; `clock` gives seconds, from now on."""
        self._journal, self._found, self._config, self._say, self._clock = journal, found, found.config, say, clock
        self._began = clock()
        noise = audit_noise(journal.state)  # it stays as it is, and with it the candidates, also after a resume
        assert noise is not None
        self.keys = front_and_neighbours(journal.state, noise.sigma)
        self._end_reason: str | None = None

    def __call__(self) -> Repeat | None:
        """The next repeat, or None once all is settled or spent."""
        state = self._journal.state
        pairs = self._found.pairs(state, self.keys)
        settled = sum(pair.settled for pair in pairs)
        trial_id = next_to_repeat(pairs, repeat_counts(state, self.keys), self._config)
        hours = (self._clock() - self._began) / 3600
        if trial_id is None:
            spent = f"{self._config.seeds} repeats of every trial of an open pair are spent"
            is_settled = "every pair is settled" if pairs else "there are no two candidates to compare"
            self._end_reason = is_settled if settled == len(pairs) else spent
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
