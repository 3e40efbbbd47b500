"""Which candidates of a front hold under other seeds: whom to repeat next, and what the repeats say.

Candidates of one trial share its runs, as a repeat is scored wherever the trial was: they are settled by their
differences within each repeat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sonar.evaluate.axis_intervals import AxisResamples
from sonar.evaluate.bootstrap import Interval, Resampling
from sonar.evaluate.comparison import Dominance
from sonar.evaluate.record import TASKS_FILE, Evaluation, read_evaluation
from sonar.evaluate.seeds import (
    SeededPoint,
    SeedNoise,
    dominance,
    doubt,
    is_settled,
    mean_intervals,
    paired_dominance,
)
from sonar.search.candidate_folders import predictions_of
from sonar.search.candidates import axes_of, contenders, front_keys, ranks_of
from sonar.search.records import CandidateKey, CandidateRecord
from sonar.search.repeats import Runs, repeats_by_trial, runs_of, seed_noise, values_of
from sonar.search.state import SweepState

NEIGHBOUR_SIGMAS = 2.0  # within which a dominated candidate is repeated too


@dataclass(frozen=True, kw_only=True)
class ReevalConfig:
    """How far a front is settled.

    Attributes:
        seeds: repeats of a trial at most.
        confidence: that a probability of dominance is to exceed, or its complement fall below.
        budget_hours: no repeat is launched after this time; None: no limit.
        resampling: of the recordings.
    """

    seeds: int = 5
    confidence: float = 0.95
    budget_hours: float | None = None
    resampling: Resampling = field(default_factory=Resampling)

    def __post_init__(self) -> None:
        """Refuse what settles nothing."""
        if self.seeds < 2:
            raise ValueError(f"seeds is {self.seeds}; give 2 or more repeats of a trial, better 5")
        if not 0.5 < self.confidence < 1:
            raise ValueError(f"confidence is {self.confidence}; give a share between 0.5 and 1, as 0.95")
        if self.budget_hours is not None and not self.budget_hours > 0:
            raise ValueError(f"budget_hours is {self.budget_hours}; give hours above 0")
        if (least := self.seeds / (1.0 - self.confidence)) >= self.resampling.num:
            raise ValueError(
                f"{self.resampling.num} resamples cannot tell a probability of {self.confidence} over {self.seeds} "
                f"looks; ask for more than {least:.0f}"
            )


class Pair(NamedTuple):
    """Two candidates, how probable it is that either dominates the other, and whether that is settled."""

    first: CandidateKey
    second: CandidateKey
    dominates: Dominance | None
    settled: bool


class Standing(NamedTuple):
    """One candidate after its repeats.

    Attributes:
        key: of the candidate.
        runs: that it is judged by.
        mean: (plasticity, forgetting rate) of them, percent.
        intervals: of the means, over seeds and recordings; None while they are unknown.
        rival: the candidate against which least is settled; None where there is no other one.
        dominates: the probabilities that this one dominates the rival, and the rival this one.
    """

    key: CandidateKey
    runs: Runs
    mean: tuple[float, float]
    intervals: tuple[Interval, Interval] | None
    rival: CandidateKey | None
    dominates: Dominance | None


def front_and_neighbours(state: SweepState, sigma: np.ndarray) -> list[CandidateKey]:
    """Candidates worth a repeat, by their own runs: the front, and the best of every other trial that is near it.

    Near is what no member of the front would dominate, were it `NEIGHBOUR_SIGMAS` better on both axes.

    Args:
        state: of the sweep.
        sigma: (2,) of plasticity and forgetting rate, percent; 0 where none was seen, and then everything is near.
    """
    candidates, sigma = contenders(state), np.where(sigma > 0, sigma, np.inf)
    ranks = ranks_of(candidates)
    kept = front_keys(candidates)
    members = [candidate for candidate in candidates if ranks[candidate.key] == 1 and candidate.key in kept]
    chosen = [candidate.key for candidate in members]
    best: dict[str, CandidateRecord] = {}
    for candidate in candidates:
        known = best.get(candidate.key.trial_id)
        if known is None or _worth(candidate, ranks) < _worth(known, ranks):
            best[candidate.key.trial_id] = candidate
    taken = {key.trial_id for key in chosen}
    front = np.asarray([axes_of(candidate) for candidate in members]).reshape(-1, 2)
    near = (c.key for trial_id, c in best.items() if trial_id not in taken and _is_near(c, front, sigma))
    return sorted([*chosen, *near])


def _worth(candidate: CandidateRecord, ranks: Mapping[CandidateKey, int]) -> tuple[int, float, CandidateKey]:
    return ranks[candidate.key], -axes_of(candidate)[0], candidate.key


def _is_near(candidate: CandidateRecord, front: np.ndarray, sigma: np.ndarray) -> bool:
    reach = NEIGHBOUR_SIGMAS * sigma * (1.0, -1.0)
    plasticity, forgetting = np.asarray(axes_of(candidate)) + reach
    above = (front[:, 0] >= plasticity) & (front[:, 1] <= forgetting)
    return not (above & ((front[:, 0] > plasticity) | (front[:, 1] < forgetting))).any()


def next_to_repeat(pairs: Sequence[Pair], counts: Mapping[str, int], config: ReevalConfig) -> str | None:
    """The trial to repeat next: of the pair least settled the one with fewer repeats.

    Args:
        pairs: of all candidates.
        counts: repeats by trial, unfinished ones among them; trials without an entry are not to be repeated.
        config: its `seeds` limit the repeats of a trial.

    Returns:
        None where every pair is settled, or no trial of an unsettled one may be repeated again.
    """
    order = sorted((pair for pair in pairs if not pair.settled), key=lambda p: (-doubt(p.dominates), p.first, p.second))
    for pair in order:
        ids = {pair.first.trial_id, pair.second.trial_id}
        free = [(counts[trial_id], trial_id) for trial_id in ids if counts.get(trial_id, config.seeds) < config.seeds]
        if free:
            return min(free)[1]
    return None


class Reevaluation:
    """What a sweep's journal and the predictions of its trials say of the candidates, at any time."""

    def __init__(self, folder: Path, base: Evaluation, config: ReevalConfig) -> None:
        """Of the sweep in `folder`, whose trials were adapted from a base with that evaluation."""
        self._trials, self.config = folder / "trials", config
        self._resamples = AxisResamples(base, config.resampling)
        self._shifts: dict[CandidateKey, np.ndarray | None] = {}

    def pairs(self, state: SweepState, keys: Sequence[CandidateKey]) -> list[Pair]:
        """All pairs of candidates."""
        noise = seed_noise(state)
        runs = runs_of(state, keys)
        points = {key: self._point(state, key, runs[key]) for key in keys}
        found = []
        for first, second in combinations(keys, 2):
            if any(runs[key].is_own and not points[key].is_exact for key in (first, second)):
                probable = None
            elif first.trial_id == second.trial_id:
                probable = self._within_runs(state, first, second, runs)
            else:
                probable = self._dominance(points[first], points[second], noise)
            settled = is_settled(probable, self.config.confidence, self.config.seeds)
            found.append(Pair(first, second, probable, settled))
        return found

    def standings(self, state: SweepState, keys: Sequence[CandidateKey]) -> list[Standing]:
        """Of every candidate, by rising mean forgetting."""
        noise, pairs = seed_noise(state), self.pairs(state, keys)
        found = []
        for key, runs in runs_of(state, keys).items():
            point = self._point(state, key, runs)
            rival, probable = _least_settled(key, pairs)
            intervals = None if runs.is_own and not point.is_exact else self._intervals(point, noise)
            plasticity, forgetting = point.mean.tolist()
            found.append(Standing(key, runs, (plasticity, forgetting), intervals, rival, probable))
        return sorted(found, key=lambda standing: (standing.mean[1], standing.key))

    def _within_runs(
        self, state: SweepState, first: CandidateKey, second: CandidateKey, runs: Mapping[CandidateKey, Runs]
    ) -> Dominance | None:
        """Of two candidates of one trial, by the repeats that have both; one that lacks one of them failed there."""

        def point(key: CandidateKey, other: CandidateKey) -> SeededPoint:
            shared = {run.trial_id for run in runs[other].found}
            found = tuple(run for run in runs[key].found if run.trial_id in shared)
            failed = {name: why for name, why in runs[key].failed.items() if name in shared}
            return self._point(state, key, Runs(found, failed, is_own=False))

        return paired_dominance(point(first, second), point(second, first), self.config.resampling.seed)

    def _dominance(self, first: SeededPoint, second: SeededPoint, noise: SeedNoise | None) -> Dominance | None:
        return dominance(first, second, noise, self.config.resampling.seed)

    def _intervals(self, point: SeededPoint, noise: SeedNoise | None) -> tuple[Interval, Interval] | None:
        return mean_intervals(point, noise, self.config.resampling)

    def _point(self, state: SweepState, key: CandidateKey, runs: Runs) -> SeededPoint:
        shifts = [self._shift(state, run) for run in runs.found]
        known = [shift for shift in shifts if shift is not None]
        return SeededPoint(
            values=values_of(state, runs),
            num_failed=len(runs.failed),
            shifts=np.mean(known, axis=0) if len(known) == len(shifts) else None,
            is_exact=key.step == 0,
        )

    def _shift(self, state: SweepState, key: CandidateKey) -> np.ndarray | None:
        """(R, 2) what resamples of the recordings change of one run; None where its predictions were given up."""
        if key not in self._shifts:
            folder, value = self._evaluation(state, key), axes_of(state.candidates[key])
            draws = None if folder is None else self._resamples.draws(read_evaluation(folder))
            self._shifts[key] = None if draws is None else draws - value
        return self._shifts[key]

    def _evaluation(self, state: SweepState, key: CandidateKey) -> Path | None:
        folder = predictions_of(self._trials, state.trials[key.trial_id], key)
        return folder if (folder / TASKS_FILE).is_file() else None


def repeat_counts(state: SweepState, keys: Sequence[CandidateKey]) -> dict[str, int]:
    """Repeats of the trials of candidates, for `next_to_repeat`; trials that train nothing are not among them."""
    repeats = repeats_by_trial(state)
    return {key.trial_id: len(repeats.get(key.trial_id, [])) for key in keys if key.step > 0}


def _least_settled(key: CandidateKey, pairs: Sequence[Pair]) -> tuple[CandidateKey | None, Dominance | None]:
    mine = [pair for pair in pairs if key in (pair.first, pair.second)]
    if not mine:
        return None, None
    pair = max(mine, key=lambda pair: doubt(pair.dominates))
    if pair.first == key or pair.dominates is None:
        return (pair.second if pair.first == key else pair.first), pair.dominates
    return pair.first, Dominance(pair.dominates.second, pair.dominates.first)
