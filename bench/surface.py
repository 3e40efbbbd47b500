"""A simulated SONAR trial: both objectives over steps, with noise and a stability gap, and a front in closed form.

Parameters are those of SONAR_SPACE. With r and m the places of replay and model distillation in their ranges, the
freedom s = 1 - (r + m) / 2 says how far a trial trades forgetting for plasticity; what is wrong with it, g >= 0, lowers
plasticity and raises forgetting: the squared distance of the other three parameters from a best point that the seed
draws, and of r from m. At the end of a trial

    plasticity = P (2 s - s^2) - 8 g,   forgetting = F0 + (F1 - F0) s^2 + 10 g      (percent)

Both rise with s, so the front is g = 0, s in [0, 1]. On the way both saturate at a speed that hangs on the
configuration, and forgetting has a spike of 3 to 12 percent that peaks after 3 to 7 percent of the steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from sonar.search.space import SONAR_SPACE, Dimension, LogUniform, Uniform

P, F0, F1 = 12.0, -1.0, 25.0  # percent: most plasticity; least and most forgetting on the front
LOSS, EXCESS = 8.0, 10.0  # percent of plasticity lost and of forgetting added for g = 1
REPLAY, DISTILLATION = "sampling.replay_ratio", "distill.model_weight"
DCPT = (P, F1 + 2.0)  # the anchor that gives forgetting no thought


class Noise(NamedTuple):
    """Standard deviations, percent: of a trial's seed, the same at all its points, and of each of its evaluations."""

    seed: float = 0.7
    evaluation: float = 0.7


class Values(NamedTuple):
    """Plasticity and forgetting rate, percent."""

    plasticity: float
    forgetting: float


class Surface:
    """What trials of one domain would measure.

    Attributes:
        num_steps: of a trial.
    """

    def __init__(self, seed: int, num_steps: int = 120, noise: Noise | None = None) -> None:
        """Draw the best point, and how speed and gap hang on the parameters."""
        rng = np.random.default_rng([seed, 6])
        self.num_steps, self._seed, self._noise = num_steps, seed, noise or Noise()
        self._best = rng.uniform(0.2, 0.8, 3)
        self._waves = rng.uniform(-1.0, 1.0, (4, len(SONAR_SPACE)))
        self._phases = rng.uniform(0.0, 2 * math.pi, 4)

    def final(self, params: Mapping[str, float]) -> Values:
        """Without noise, at the end."""
        unit = {key: _place(dimension, params[key]) for key, dimension in SONAR_SPACE.items()}
        replay, pull = unit.pop(REPLAY), unit.pop(DISTILLATION)
        freedom = 1 - (replay + pull) / 2
        wrong = float(np.mean(((np.array(list(unit.values())) - self._best) / 0.5) ** 2)) + (replay - pull) ** 2 / 2
        plasticity = P * (2 * freedom - freedom**2) - LOSS * wrong
        return Values(plasticity, F0 + (F1 - F0) * freedom**2 + EXCESS * wrong)

    def true(self, params: Mapping[str, float], step: int) -> Values:
        """Without noise, after `step` steps; 0 both at the start."""
        end, done = self.final(params), step / self.num_steps
        learns, forgets, deep, late = self._traits(params)
        peak = 0.03 + 0.04 * late
        spike = (3 + 9 * deep) * (done / peak) * math.exp(1 - done / peak) * (1 - done)
        return Values(
            end.plasticity * saturating(done, 2 + 3 * learns),
            end.forgetting * saturating(done, 2 + 3 * forgets) + spike,
        )

    def measured(self, params: Mapping[str, float], step: int, trial: int) -> Values:
        """As trial number `trial` of the sweep would find it; the same each time it is asked."""
        of_seed = np.random.default_rng([self._seed, trial]).normal(0, self._noise.seed, 2)
        of_point = np.random.default_rng([self._seed, trial, step]).normal(0, self._noise.evaluation, 2)
        plasticity, forgetting = np.array(self.true(params, step)) + of_seed * (step / self.num_steps) + of_point
        return Values(float(plasticity), float(forgetting))

    def on_front(self, freedom: float) -> dict[str, float]:
        """The parameters of a point of the front."""
        rest = iter(self._best)
        return {
            key: _value(dimension, 1 - freedom if key in (REPLAY, DISTILLATION) else next(rest))
            for key, dimension in SONAR_SPACE.items()
        }

    def _traits(self, params: Mapping[str, float]) -> list[float]:
        """Four numbers in [0, 1] that vary smoothly over the space and say nothing of how a trial ends."""
        unit = np.array([_place(dimension, params[key]) for key, dimension in SONAR_SPACE.items()])
        return [float(trait) for trait in 0.5 + 0.5 * np.sin(2 * math.pi * self._waves @ unit + self._phases)]


def true_hypervolume(reference: tuple[float, float]) -> float:
    """Of the front against (plasticity, forgetting), the latter within [F0, F1] or beyond; percent squared.

    The integral over forgetting f of P (2 s - s^2) - plasticity of the reference, with s^2 = (f - F0) / (F1 - F0).
    """
    least, most = reference
    end = min(1.0, math.sqrt((most - F0) / (F1 - F0)))
    rising = P * (F1 - F0) * (4 / 3 * end**3 - end**4 / 2)
    return rising + P * max(0.0, most - F1) - least * (most - F0)


def saturating(done: float, speed: float) -> float:
    """From 0 at the start to 1 when all is done."""
    return (1 - math.exp(-speed * done)) / (1 - math.exp(-speed))


def _place(dimension: Dimension, value: float) -> float:
    """Where a value lies in its range, in [0, 1]."""
    assert isinstance(dimension, Uniform | LogUniform)
    low, high = dimension.low, dimension.high
    if isinstance(dimension, LogUniform):
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _value(dimension: Dimension, place: float) -> float:
    """The value at a place of a range."""
    assert isinstance(dimension, Uniform | LogUniform)
    low, high = dimension.low, dimension.high
    return float(low * (high / low) ** place) if isinstance(dimension, LogUniform) else low + place * (high - low)
