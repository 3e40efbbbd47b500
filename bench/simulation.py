"""A sweep on a simulated surface: workers, budget, points of curves, and the hypervolume that it reaches.

Nothing of a way to search is in here: it gives trials and hears of them (`Search`).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from surface import DCPT, Surface, Values, saturating

from sonar.search.dominance import hypervolume, non_dominated
from sonar.search.halving import DIRECTIONS, GO_ON, Decision

LEAST_PLASTICITY = -1.0  # of the reference point: a percent below the base, as in sonar.search.results


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One comparison.

    Attributes:
        budget: training steps of a sweep, in whole trials.
        every: steps between two points of a curve.
        before: steps of a trial before its model stage, which no rung can save.
        point_cost: steps that an evaluation on the way costs; searches without early stopping have none.
        workers: trials at a time.
        limit: of forgetting, percent: what lies above it counts nothing; None: the whole front counts.
    """

    budget: int = 40
    every: int = 5
    before: int = 0
    point_cost: float = 0.5
    workers: int = 4
    limit: float | None = None

    @property
    def reference(self) -> tuple[float, float]:
        """Of the hypervolume."""
        return LEAST_PLASTICITY, DCPT[1] + 1 if self.limit is None else self.limit


class Asked(NamedTuple):
    """A trial to run: its number, parameters or the name of the anchor, and what belongs to the searcher."""

    number: int
    params: dict[str, float]
    anchor: str | None
    handle: Any


class Search(Protocol):
    """A way to search: gives trials, hears their points and ends."""

    def ask(self) -> Asked:
        """The next trial."""

    def on_point(self, trial: Asked, step: int, values: Values) -> Decision:
        """Whether the trial goes on."""

    def tell(self, trial: Asked, curve: Sequence[tuple[int, Values]]) -> None:
        """The trial has run to its end."""

    def stop(self, trial: Asked, reason: str) -> None:
        """The trial was stopped."""


class Reached(NamedTuple):
    """Hypervolume after some compute: whole trials spent by all workers, percent squared."""

    compute: float
    hypervolume: float


class Candidate(NamedTuple):
    """A model that a sweep could keep: what was measured of it, and what is true."""

    measured: Values
    true: Values


class Run(NamedTuple):
    """A whole sweep: how its hypervolume rose, and how many trials ended or were stopped.

    Attributes:
        reached: by the finished trials.
        anytime: by these and every point of a curve: the candidates that are kept, which are those on the measured
            front, and count by their true values.
        num_told: searched trials and anchors that ran to their end.
        num_stopped: stopped ones.
    """

    reached: list[Reached]
    anytime: list[Reached]
    num_told: int
    num_stopped: int


def simulate(search: Search, surface: Surface, setting: Setting, *, watched: bool) -> Run:
    """Run a sweep until its budget is spent; workers take the next trial when theirs has ended.

    Args:
        search: what is compared.
        surface: what trials measure.
        setting: budget and costs.
        watched: whether evaluations on the way are made, and paid.
    """
    simulation = _Simulation(search, surface, setting, watched)
    for worker in range(setting.workers):
        simulation.begin(worker / setting.workers)
    while simulation.spent < setting.budget:
        simulation.advance()
    return simulation.run


class _Simulation:
    """A sweep in progress; `spent` counts whole trials."""

    def __init__(self, search: Search, surface: Surface, setting: Setting, watched: bool) -> None:
        self.search, self.surface, self.setting, self.watched = search, surface, setting, watched
        self.spent, self.run = 0.0, Run([Reached(0.0, 0.0)], [Reached(0.0, 0.0)], 0, 0)
        self.finished: list[Values] = []
        self.kept: list[Candidate] = []
        self.curves: dict[int, list[tuple[int, Values]]] = {}
        self.queue: list[tuple[float, int, int, Asked]] = []  # when, trial, step that will then be done

    def begin(self, now: float) -> None:
        """Start a trial on a worker."""
        trial = self.search.ask()
        while trial.anchor == "base":  # it is measured already: nothing is trained
            self.search.tell(trial, [(0, Values(0.0, 0.0))])
            trial = self.search.ask()
        self.curves[trial.number] = []
        self.push(now + self.setting.before, trial, self.setting.every)

    def push(self, now: float, trial: Asked, step: int) -> None:
        heapq.heappush(self.queue, (now + self.setting.every, trial.number, step, trial))

    def advance(self) -> None:
        """Take the next point of any trial."""
        now, _, step, trial = heapq.heappop(self.queue)
        is_end = step >= self.surface.num_steps
        self.pay(is_first=step == self.setting.every, is_end=is_end)
        values = measure(self.surface, trial, step)
        self.curves[trial.number].append((step, values))
        true = Values(*DCPT) if trial.anchor else self.surface.true(trial.params, step)
        if is_end or (self.watched and trial.anchor is None):
            self.keep(Candidate(values, true))
        decision = GO_ON if is_end else self.search.on_point(trial, step, values)
        if is_end:
            self.finish(trial, true)
        elif decision.stop:
            self.search.stop(trial, decision.reason)
            self.run = self.run._replace(num_stopped=self.run.num_stopped + 1)
        if is_end or decision.stop:
            self.begin(now)
        else:
            self.push(now, trial, step + self.setting.every)

    def pay(self, *, is_first: bool, is_end: bool) -> None:
        steps = self.setting.every + (self.setting.before if is_first else 0)
        point = self.setting.point_cost if self.watched and not is_end else 0.0
        self.spent += (steps + point) / (self.setting.before + self.surface.num_steps)

    def keep(self, candidate: Candidate) -> None:
        self.kept = best([*self.kept, candidate])
        self.run.anytime.append(self.reached([kept.true for kept in self.kept]))

    def finish(self, trial: Asked, true: Values) -> None:
        self.search.tell(trial, self.curves.pop(trial.number))
        self.finished.append(true)
        self.run.reached.append(self.reached(self.finished))
        self.run = self.run._replace(num_told=self.run.num_told + 1)

    def reached(self, values: Sequence[Values]) -> Reached:
        return Reached(self.spent, hypervolume(values, DIRECTIONS, self.setting.reference))


def best(candidates: list[Candidate]) -> list[Candidate]:
    """Those on the measured front."""
    on_front = non_dominated([candidate.measured for candidate in candidates], DIRECTIONS)
    return [candidate for candidate, is_on in zip(candidates, on_front, strict=True) if is_on]


def measure(surface: Surface, trial: Asked, step: int) -> Values:
    """A point of a searched trial, or of the anchor DCPT, which forgets and never recovers."""
    if trial.anchor is None:
        return surface.measured(trial.params, step, trial.number)
    done = saturating(step / surface.num_steps, 3.0)
    return Values(DCPT[0] * done, DCPT[1] * done)
