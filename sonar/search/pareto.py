"""The front and the choice of one of its points, with the reasons in words; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sonar.search.dominance import Direction, hypervolume, non_dominated, nondominated_rank

__all__ = [
    "Direction",
    "Pick",
    "Point",
    "hypervolume",
    "non_dominated",
    "nondominated_rank",
    "pick_epsilon",
    "pick_knee",
]

MIN_KNEE_POINTS = 5


class Point(NamedTuple):
    """A candidate on the two axes of a sweep, both in percent of the base model's score.

    Where the upper 95 % bound of forgetting is known (`forgetting_upper`), a limit applies to it.
    """

    name: str
    plasticity: float
    forgetting_rate: float
    forgetting_upper: float | None = None


@dataclass(frozen=True)
class Pick:
    """The chosen point and why.

    `index` and `runners_up` are positions among the points given; `explanation` is one paragraph with the
    numbers, the runner-up and what would change the choice.
    """

    index: int
    rule: str
    explanation: str
    runners_up: tuple[int, ...]


def pick_epsilon(points: Sequence[Point], limit: float) -> Pick:
    """The most plastic point whose forgetting (its upper bound, where known) keeps within the limit.

    Args:
        points: candidates, in any order.
        limit: highest forgetting rate allowed, percent.

    Raises:
        ValueError: a number that is not finite, or no point within the limit.
    """
    _check_points(points)
    if not np.isfinite(limit):
        raise ValueError(f"limit is {limit!r}; allowed: a finite number, in percent")
    feasible = [index for index, point in enumerate(points) if _bound(point) <= limit]
    if not feasible:
        least = min((_bound(point) for point in points), default=None)
        known = "there are no points" if least is None else f"the least forgetful one has {least:.2f} %"
        raise ValueError(f"no point forgets at most {limit:g} %: {known}; raise the limit or search on")
    order = _by_plasticity(points, feasible)
    explanation = " ".join(
        (
            f"Picked {_describe(points[order[0]])}: the most plastic of the {len(feasible)} of {len(points)} "
            f"points whose forgetting is at most {limit:g} %.",
            _runner_up_sentence(points, order),
            *_limit_sentences(points, order[0], limit),
        )
    )
    return Pick(order[0], f"most plasticity with forgetting <= {limit:g} %", explanation, tuple(order[1:4]))


def pick_knee(points: Sequence[Point]) -> Pick:
    """The front point farthest above the line through the front's two ends, both axes scaled to 0..1.

    Args:
        points: candidates, in any order; dominated ones are left out of the search.

    Raises:
        ValueError: a number that is not finite, fewer than 5 different points on the front, or a front that
            nowhere bulges above the line.
    """
    _check_points(points)
    front = _distinct_front(points)
    if len(front) < MIN_KNEE_POINTS:
        raise ValueError(
            f"the front has {len(front)} different points; a knee needs {MIN_KNEE_POINTS}: pick by a limit"
        )
    heights = _heights(points, front)
    order = sorted(range(len(front)), key=lambda place: (-heights[place], points[front[place]].name))
    if heights[order[0]] <= 0:
        raise ValueError("no front point lies above the line between its ends: there is no knee, pick by a limit")
    ranked = [front[place] for place in order]
    second = points[ranked[1]]
    explanation = " ".join(
        (
            f"Picked {_describe(points[ranked[0]])}: of the {len(front)} front points it lies farthest above "
            f"the line between the front's ends ({heights[order[0]]:.2f} on axes scaled to 0..1).",
            f"Runner-up: {_describe(second)}, {heights[order[1]]:.2f} above the line.",
            _knee_change_sentence(points, front, ranked[0]),
        )
    )
    return Pick(ranked[0], "knee of the front", explanation, tuple(ranked[1:4]))


def _bound(point: Point) -> float:
    return point.forgetting_rate if point.forgetting_upper is None else point.forgetting_upper


def _check_points(points: Sequence[Point]) -> None:
    for point in points:
        if not np.isfinite((point.plasticity, point.forgetting_rate, _bound(point))).all():
            raise ValueError(f"{point}: allowed: finite values only")


def _by_plasticity(points: Sequence[Point], indices: Sequence[int]) -> list[int]:
    def worth(index: int) -> tuple[float, float, str]:
        return (-points[index].plasticity, _bound(points[index]), points[index].name)

    return sorted(indices, key=worth)


def _describe(point: Point) -> str:
    bound = "" if point.forgetting_upper is None else f", at most {point.forgetting_upper:.2f} %"
    numbers = f"plasticity {point.plasticity:+.2f} %, forgetting {point.forgetting_rate:.2f} %{bound}"
    return f"{point.name!r} ({numbers})"


def _runner_up_sentence(points: Sequence[Point], order: Sequence[int]) -> str:
    if len(order) < 2:
        return "No other point keeps within the limit."
    gap = points[order[0]].plasticity - points[order[1]].plasticity
    return f"Runner-up: {_describe(points[order[1]])}, {gap:.2f} points less plastic."


def _limit_sentences(points: Sequence[Point], picked: int, limit: float) -> list[str]:
    """Which other limits would pick another point."""
    chosen = points[picked]
    beyond = [i for i, p in enumerate(points) if _bound(p) > limit and p.plasticity > chosen.plasticity]
    below = [i for i, point in enumerate(points) if _bound(point) < _bound(chosen)]
    sentences = []
    if beyond:
        loosest = min(_bound(points[i]) for i in beyond)
        other = _by_plasticity(points, [i for i in beyond if _bound(points[i]) == loosest])[0]
        sentences.append(f"A limit of {loosest:.2f} % would pick {_describe(points[other])}.")
    else:
        sentences.append("No higher limit would change the choice.")
    if below:
        other = _by_plasticity(points, below)[0]
        sentences.append(f"A limit below {_bound(chosen):.2f} % would pick {_describe(points[other])}.")
    return sentences


def _distinct_front(points: Sequence[Point]) -> list[int]:
    """One index for each different point of the front, in the order of rising forgetting."""
    values = np.array([point[1:3] for point in points], dtype=np.float64).reshape(len(points), 2)
    mask = non_dominated(values, ("max", "min"))
    named = sorted((points[i].forgetting_rate, points[i].name, i) for i in np.flatnonzero(mask).tolist())
    first: dict[float, int] = {}
    for forgetting, _, index in named:
        first.setdefault(forgetting, index)
    return list(first.values())


def _heights(points: Sequence[Point], front: Sequence[int]) -> list[float]:
    """Distance of each front point above the line from the least forgetful to the most plastic one."""
    values = np.array([points[index][1:3] for index in front], dtype=np.float64)
    scaled = (values - values[0]) / (values[-1] - values[0])
    return [float(height) for height in (scaled[:, 0] - scaled[:, 1]) / np.sqrt(2)]


def _knee_change_sentence(points: Sequence[Point], front: Sequence[int], picked: int) -> str:
    changing = []
    for left_out in front:
        if left_out == picked:
            continue
        rest = [index for index in front if index != left_out]
        heights = _heights(points, rest)
        if rest[int(np.argmax(heights))] != picked:
            changing.append(repr(points[left_out].name))
    if not changing:
        return "Leaving out any one other front point would not change the choice."
    return f"The choice hangs on {', '.join(changing)}: without it another point would be the knee."
