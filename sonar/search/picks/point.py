"""What the rules choose from, what they give, and the words that they share; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sonar.evaluate.bootstrap import Interval
from sonar.search.dominance import non_dominated

NUM_RUNNERS_UP = 3


class Point(NamedTuple):
    """A candidate on the two axes of a sweep, both in percent of the base model's score.

    Attributes:
        name: for people.
        plasticity: gain on the target tasks.
        forgetting_rate: loss on the prior tasks.
        plasticity_interval: 95 % interval over recordings; None: unknown.
        forgetting_interval: the same.
    """

    name: str
    plasticity: float
    forgetting_rate: float
    plasticity_interval: Interval | None = None
    forgetting_interval: Interval | None = None

    @property
    def bound(self) -> float:
        """What a limit applies to: the upper end of the interval of forgetting, the rate itself where it is unknown."""
        return self.forgetting_rate if self.forgetting_interval is None else self.forgetting_interval.high


@dataclass(frozen=True)
class Pick:
    """The chosen point and why.

    Attributes:
        index: of the point among those given.
        rule: in words.
        explanation: one paragraph: the rule, the numbers with intervals, the runner-up, what would change the choice.
        runners_up: positions of those that come next.
    """

    index: int
    rule: str
    explanation: str
    runners_up: tuple[int, ...]


def check_points(points: Sequence[Point]) -> None:
    """Raise ValueError where a number is not finite, or there is no point."""
    if not points:
        raise ValueError("there are no points to pick from: no trial has ended")
    for point in points:
        if not np.isfinite((point.plasticity, point.forgetting_rate, point.bound)).all():
            raise ValueError(f"{point}: allowed: finite values only")


def make_pick(ranked: Sequence[int], rule: str, sentences: Sequence[str]) -> Pick:
    """The first of the ranked positions, for the reasons given."""
    return Pick(ranked[0], rule, " ".join(sentences), tuple(ranked[1 : 1 + NUM_RUNNERS_UP]))


def describe(point: Point) -> str:
    """Name and both axes, with intervals where they are known."""
    plasticity = f"plasticity {point.plasticity:+.2f} %{_span(point.plasticity_interval)}"
    return f"{point.name!r} ({plasticity}, forgetting {point.forgetting_rate:.2f} %{_span(point.forgetting_interval)})"


def _span(interval: Interval | None) -> str:
    return "" if interval is None else f" [{interval.low:.2f} to {interval.high:.2f}]"


def distinct_front(points: Sequence[Point]) -> list[int]:
    """One position for each different point of the front, by rising forgetting; of equal ones the first by name."""
    values = np.array([point[1:3] for point in points], dtype=np.float64).reshape(len(points), 2)
    mask = non_dominated(values, ("max", "min"))
    named = sorted((points[i].forgetting_rate, points[i].name, i) for i in np.flatnonzero(mask).tolist())
    first: dict[float, int] = {}
    for forgetting, _, index in named:
        first.setdefault(forgetting, index)
    return list(first.values())


def hinge_sentence(
    points: Sequence[Point], members: Sequence[int], picked: int, choose: Callable[[list[int]], int]
) -> str:
    """Without which other point `choose`, given the positions that are left, would choose another."""
    others = [index for index in members if index != picked]
    hinges = [index for index in others if choose([left for left in members if left != index]) != picked]
    if not hinges:
        return "Leaving out any one other front point would not change the choice."
    return f"The choice hangs on {', '.join(repr(points[i].name) for i in hinges)}: without it another is chosen."
