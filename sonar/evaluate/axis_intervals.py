"""Intervals of both axes over recordings, on resamples that all encoders adapted from one base share: numpy only.

Shapes: R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from sonar.evaluate.bootstrap import Interval, Resampling, percentile_interval
from sonar.evaluate.pairing import PairedAxes
from sonar.evaluate.record import Evaluation


class AxisIntervals(NamedTuple):
    """95 % intervals over recordings, percent of the base's score; None: unknown."""

    plasticity: Interval | None = None
    forgetting_rate: Interval | None = None

    def metrics(self) -> dict[str, float]:
        """The ends by the names that trials and journals use; nothing where they are unknown."""
        return {
            f"{axis}_{end}": value
            for axis, interval in self._asdict().items()
            if interval is not None
            for end, value in interval._asdict().items()
        }


def known_intervals(metrics: Mapping[str, float]) -> AxisIntervals:
    """What `AxisIntervals.metrics` put among other metrics."""
    found = {}
    for axis in AxisIntervals._fields:
        ends = [metrics[name] for end in Interval._fields if (name := f"{axis}_{end}") in metrics]
        found[axis] = Interval(*ends) if len(ends) == len(Interval._fields) else None
    return AxisIntervals(**found)


class AxisResamples:
    """The base's scores on resampled recordings, beside which adapted encoders are put.

    The draws depend on the base's clips and on the seed alone, so that those of different encoders are paired.
    """

    def __init__(self, base: Evaluation, config: Resampling | None = None) -> None:
        """Draw the recordings and score the base on each draw."""
        self._config = config or Resampling()
        self._axes = PairedAxes(base, self._config)
        self.has_intervals = not self._axes.without_score

    def draws(self, run: Evaluation) -> np.ndarray:
        """(R, 2) plasticity and forgetting of an encoder; raises ValueError as `PairedAxes.values`."""
        values = self._axes.values([run])
        return np.stack([values.plasticity[1:], values.forgetting_rate[1:]], axis=1)

    def intervals(self, run: Evaluation) -> AxisIntervals:
        """Of an encoder; unknown where the base scores 0 in a resample. Raises ValueError for other clips."""
        if not self.has_intervals:
            return AxisIntervals()
        draws = self.draws(run)
        return AxisIntervals(*(percentile_interval(draws[:, axis], self._config.level) for axis in range(2)))
