"""The rule of a price: what one percent of forgetting costs in plasticity; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from sonar.search.picks.point import Pick, Point, check_points, describe, make_pick


class Range(NamedTuple):
    """Weights from `low` to `high` under which a point is chosen, and the points chosen beyond; None: there are none.

    Attributes:
        low: lowest weight, 0 at least.
        high: highest weight, infinite where no weight is too high.
        below: position of the point chosen right below `low`.
        above: position of the point chosen right above `high`.
    """

    low: float
    high: float
    below: int | None
    above: int | None


def pick_weights(points: Sequence[Point], weight: float) -> Pick:
    """The point with the highest plasticity - weight x forgetting.

    Args:
        points: candidates, in any order.
        weight: percent of plasticity that one percent of forgetting is worth, 0 or more.

    Raises:
        ValueError: a number that is not finite, or a weight below 0.
    """
    check_points(points)
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"weight is {weight!r}; allowed: a finite number of 0 or more")

    def worth(index: int) -> tuple[float, float, str]:
        return (-worth_of(points[index], weight), points[index].forgetting_rate, points[index].name)

    order = sorted(range(len(points)), key=worth)
    chosen = points[order[0]]
    sentences = [
        f"Picked {describe(chosen)}: of {len(points)} points it has the highest plasticity - {weight:g} x forgetting, "
        f"{worth_of(chosen, weight):.2f}; the intervals do not count in it.",
        "There is no other point."
        if len(order) < 2
        else f"Runner-up: {describe(points[order[1]])}, {worth_of(points[order[1]], weight):.2f}.",
        *_range_sentences(points, stable_range(points, order[0])),
    ]
    return make_pick(order, f"highest plasticity - {weight:g} x forgetting", sentences)


def worth_of(point: Point, weight: float) -> float:
    """What the rule maximises."""
    return point.plasticity - weight * point.forgetting_rate


def stable_range(points: Sequence[Point], picked: int) -> Range:
    """Which weights choose the point, if one does."""
    chosen = points[picked]
    crossings = [
        ((point.plasticity - chosen.plasticity) / more, more, index)  # at that weight the two are worth the same
        for index, point in enumerate(points)
        if (more := point.forgetting_rate - chosen.forgetting_rate) != 0
    ]
    low, _, below = max((c for c in crossings if c[1] > 0 and c[0] > 0), default=(0.0, 0.0, None))
    high, _, above = min((c for c in crossings if c[1] < 0), default=(math.inf, 0.0, None))
    return Range(low, high, below, above)


def _range_sentences(points: Sequence[Point], edges: Range) -> list[str]:
    sentences = []
    if edges.below is not None:
        sentences.append(f"A weight below {edges.low:.3g} would pick {describe(points[edges.below])}.")
    if edges.above is not None:
        sentences.append(f"A weight above {edges.high:.3g} would pick {describe(points[edges.above])}.")
    return sentences or ["No other weight would change the choice."]
