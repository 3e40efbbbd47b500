"""Configurations that were run under several seeds: means, intervals, and the probability that one dominates another.

What another seed changes is estimated from all of them together, as each has few runs, and drawn from Student's t; what
other recordings change is resampled, on the same resamples for all. What a seed changes on these recordings alone is in
both, so intervals are rather too wide than too short. Seeds of different configurations are not paired: common random
numbers make their differences no noisier than that. Places in the same runs are.

Shapes: S runs, R resamples; the last axis is plasticity, forgetting rate, in percent of the base's score.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from sonar.evaluate.bootstrap import Interval, Resampling, percentile_interval
from sonar.evaluate.comparison import Dominance, dominance_of

BETTER = np.asarray([1.0, -1.0])  # sign of a gain on each axis


class SeedNoise(NamedTuple):
    """What another seed changes: (2, 2) covariance of one run's value, and its degrees of freedom."""

    covariance: np.ndarray
    freedom: int

    @property
    def sigma(self) -> np.ndarray:
        """(2,) standard deviation of each axis."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def is_measured(self) -> bool:
        """Whether seeds were seen to change both axes; no change at all means scores too coarse to show it."""
        return bool((np.diag(self.covariance) > 0).all())

    def draws(self, num: int, rng: np.random.Generator) -> np.ndarray:
        """(num, 2) of Student's t with this covariance as its scale."""
        values, vectors = np.linalg.eigh(self.covariance)
        normal = rng.standard_normal((num, 2)) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
        return normal * np.sqrt(self.freedom / rng.chisquare(self.freedom, size=(num, 1)))


def pool_noise(groups: Iterable[np.ndarray]) -> SeedNoise | None:
    """The noise that groups of runs (S, 2) share, each about its own mean; None where no group has two runs."""
    products, freedom = np.zeros((2, 2)), 0
    for values in groups:
        if len(values) > 1:
            residuals = values - values.mean(axis=0)
            products, freedom = products + residuals.T @ residuals, freedom + len(values) - 1
    return SeedNoise(products / freedom, freedom) if freedom else None


class SeededPoint(NamedTuple):
    """One configuration under its seeds.

    Attributes:
        values: (S, 2) of the runs that have a result, at least one.
        num_failed: runs that have none.
        shifts: (R, 2) what each resample of the recordings changes of their mean; None where nobody knows.
        is_exact: no seed changes it: nothing was trained.
    """

    values: np.ndarray
    num_failed: int
    shifts: np.ndarray | None
    is_exact: bool = False

    @property
    def mean(self) -> np.ndarray:
        """(2,) of the runs that have a result."""
        return self.values.mean(axis=0)

    @property
    def variance_share(self) -> float:
        """What the mean has of the variance of one run."""
        return 0.0 if self.is_exact else 1.0 / len(self.values)

    @property
    def finished_share(self) -> float:
        """Of its runs, those that have a result."""
        return len(self.values) / (len(self.values) + self.num_failed)


def mean_intervals(point: SeededPoint, noise: SeedNoise | None, config: Resampling) -> tuple[Interval, Interval] | None:
    """Intervals of the mean on both axes, over seeds and recordings; None where one of them is unknown."""
    if point.shifts is None or not (point.is_exact or (noise is not None and noise.is_measured)):
        return None
    draws = point.mean + point.shifts
    if noise is not None:
        seeds = noise.draws(len(draws), np.random.default_rng(config.seed))
        draws = draws + seeds * np.sqrt(point.variance_share)
    plasticity, forgetting = (percentile_interval(draws[:, axis], config.level) for axis in (0, 1))
    return plasticity, forgetting


def dominance(first: SeededPoint, second: SeededPoint, noise: SeedNoise | None, seed: int = 0) -> Dominance | None:
    """How probable it is that either has the better mean on one axis and no worse one on the other.

    A run that failed dominates nothing: the probability is scaled by the share of runs that have a result.

    Returns:
        None where it cannot be said: the noise, or what recordings change of one of them, is unknown.
    """
    if noise is None or not noise.is_measured or first.shifts is None or second.shifts is None:
        return None
    shifts = first.shifts - second.shifts
    spread = np.sqrt(first.variance_share + second.variance_share)
    seeds = noise.draws(len(shifts), np.random.default_rng(seed))
    gains = (first.mean - second.mean + shifts + spread * seeds) * BETTER
    found = dominance_of(gains)
    return Dominance(found.first * first.finished_share, found.second * second.finished_share)


def paired_dominance(first: SeededPoint, second: SeededPoint, seed: int = 0) -> Dominance | None:
    """The same of two places in the same runs, row by row: what a seed changes of both alike is in no difference.

    What it changes of the difference is estimated from these runs alone, as places differ in how far they are apart.
    """
    if first.shifts is None or second.shifts is None:
        return None
    differences = first.values - second.values
    difference = SeededPoint(differences, first.num_failed, first.shifts - second.shifts)
    nothing = SeededPoint(np.zeros_like(differences), second.num_failed, np.zeros_like(first.shifts), is_exact=True)
    return dominance(difference, nothing, pool_noise([differences]), seed)


def doubt(found: Dominance | None) -> float:
    """How unsettled a pair is: the larger distance of its two probabilities from certainty, in [0, 0.5]."""
    return 0.5 if found is None else max(min(value, 1.0 - value) for value in found)


def is_settled(found: Dominance | None, confidence: float, num_looks: int) -> bool:
    """Whether both probabilities are beyond `confidence`, or below its complement, as far as looking often allows.

    A probability that is looked at after every run crosses any line by chance sooner or later. So the error that
    `confidence` leaves is shared evenly among the looks (Bonferroni): all of them together err no more often.
    """
    return doubt(found) < (1.0 - confidence) / num_looks
