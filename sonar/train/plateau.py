"""When a stage has learnt what it can: a rule over windows of steps."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple


class Plateau(NamedTuple):
    """A stage ends when a metric stops rising.

    Attributes:
        metric: name of a shown term, the higher the better.
        window: steps that are averaged; the rule is asked once at the end of every window.
        gain: the metric's mean must rise by more than this from one window to the next, in units of the metric.
    """

    metric: str
    window: int
    gain: float

    def watched(self, before: Sequence[float], value: float) -> tuple[float, ...]:
        """The metric of the steps that the rule still looks at, after one more step."""
        return (*before, value)[-2 * self.window :]

    def is_reached(self, watched: Sequence[float], num_steps: int) -> bool:
        """Whether a stage of `num_steps` steps so far ends here."""
        if num_steps % self.window or len(watched) < 2 * self.window:
            return False
        return fmean(watched[self.window :]) - fmean(watched[: self.window]) <= self.gain
