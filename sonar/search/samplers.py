"""Optuna's samplers by name: the next point of a space as a pure function of what is known of earlier ones.

A study and its sampler are made anew for every point, with a seed of their own, so that nothing which a sampler keeps
between points (random states, the generations of a population, fits of a Gaussian process) is lost with a driver.

How each one uses the constraint, and what it makes of trials that the scheduler stopped, is in docs/sweep.md.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from sonar.search.dimensions import Choice, Dimension, IntUniform, LogUniform, num_points
from sonar.search.dominance import Direction
from sonar.search.space import SamplerName

NUM_RANDOM = 8  # points at random before a sampler has something to go by; the population of NSGA
# How far above the limit a pruned trial counts. It has no values that compare with those of others; without this TPE
# would take it for better than every finished trial above the limit.
PRUNED_EXCESS = 1e6
NUM_ATTEMPTS = 8  # of a sampler at a point that is new, before one is drawn at random

Params: TypeAlias = Mapping[str, Any]


class Observed(NamedTuple):
    """A trial as a sampler sees it.

    Attributes:
        params: its point of the space.
        status: "told", "pruned" (stopped by the scheduler) or "running".
        values: the objectives of a told one, in the order of the directions.
        excess: how far forgetting of a told one is above the limit, percent; None: there is no limit.
    """

    params: Params
    status: Literal["told", "pruned", "running"]
    values: tuple[float, ...] = ()
    excess: float | None = None


class Proposer:
    """Points of one space by one sampler."""

    def __init__(
        self, sampler: SamplerName, space: Mapping[str, Dimension], directions: Sequence[Direction], seed: int
    ) -> None:
        """`seed` and a point's number decide every draw."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._sampler, self._space, self._seed = sampler, space, seed
        self._distributions = {key: _distribution(dimension) for key, dimension in space.items()}
        self._directions = [StudyDirection.MAXIMIZE if way == "max" else StudyDirection.MINIMIZE for way in directions]

    def propose(self, observed: Sequence[Observed], taken: set[str], number: int) -> dict[str, Any] | None:
        """The next point.

        Args:
            observed: told and pruned trials in the order in which they ended, then running ones.
            taken: `point_key` of every point of the space that has been given out, none of which comes again.
            number: of the point, from 0.

        Returns:
            A value for every key of the space, or None when all its points are taken.
        """
        if len(taken) >= num_points(self._space):
            return None
        study = optuna.create_study(directions=self._directions)
        study.add_trials(self._frozen(_balanced(observed)))
        attempt = 0
        while True:
            name = self._sampler if attempt < NUM_ATTEMPTS else "random"
            study.sampler = make_sampler(name, _seed(self._seed, number, attempt))
            trial = study.ask(self._distributions)
            if point_key(trial.params) not in taken:
                return dict(trial.params)
            study.tell(trial, state=TrialState.FAIL)  # samplers pass over it
            attempt += 1

    def _frozen(self, observed: Sequence[Observed]) -> list[FrozenTrial]:
        """The trials as Optuna keeps them, told ones dealt into generations in their order."""
        trials, num_told = [], 0
        for seen in observed:
            excess = PRUNED_EXCESS if seen.status == "pruned" else seen.excess
            kind = {"told": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "running": TrialState.RUNNING}
            attributes = _generation(self._sampler, num_told // NUM_RANDOM) if seen.status == "told" else {}
            num_told += seen.status == "told"
            trials.append(
                create_trial(
                    state=kind[seen.status],
                    params=dict(seen.params),
                    distributions=self._distributions,
                    values=[float(value) for value in seen.values] or None,  # TPE breaks on whole numbers
                    constraints=None if excess is None else {"forgetting": excess},
                    system_attrs=attributes,
                )
            )
        return trials


def _balanced(observed: Sequence[Observed]) -> list[Observed]:
    """All but the earliest pruned trials, no more of which are kept than there are told ones.

    TPE takes a tenth of told and pruned ones together for its good ones. Where most are pruned, that would be every
    told one, and nothing would tell a good one from a bad one.
    """
    num_told = sum(seen.status == "told" for seen in observed)
    pruned = [place for place, seen in enumerate(observed) if seen.status == "pruned"]
    left_out = set(pruned[: max(0, len(pruned) - num_told)])
    return [seen for place, seen in enumerate(observed) if place not in left_out]


def make_sampler(name: SamplerName, seed: int) -> BaseSampler:
    """One of Optuna's samplers, set up for sweeps of some dozens of trials."""
    if name == "tpe":
        return TPESampler(multivariate=True, constant_liar=True, n_startup_trials=NUM_RANDOM, seed=seed)
    if name == "nsga2":
        return NSGAIISampler(population_size=NUM_RANDOM, seed=seed)
    if name == "nsga3":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # at every point; the interface is pinned by tests
            return NSGAIIISampler(population_size=NUM_RANDOM, seed=seed)
    if name == "gp":
        return GPSampler(n_startup_trials=NUM_RANDOM, seed=seed)
    return RandomSampler(seed=seed)


def point_key(params: Params) -> str:
    """The same text for the same point, and only for it."""
    return json.dumps(dict(params), sort_keys=True)


def _generation(sampler: SamplerName, generation: int) -> dict[str, int]:
    """Where NSGA looks for the generation of a trial; a trial without it belongs to none and is never a parent."""
    return {f"{type(make_sampler(sampler, 0)).__name__}:generation": generation}


def _seed(seed: int, number: int, attempt: int) -> int:
    return int(np.random.SeedSequence([seed, number, attempt]).generate_state(1)[0])


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.values)
    if isinstance(dimension, IntUniform):
        return IntDistribution(dimension.low, dimension.high)
    return FloatDistribution(dimension.low, dimension.high, log=isinstance(dimension, LogUniform))
