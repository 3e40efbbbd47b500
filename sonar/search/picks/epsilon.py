"""The default rule: most plasticity within a limit of forgetting; pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sonar.search.picks.point import Pick, Point, check_points, describe, make_pick


def pick_epsilon(points: Sequence[Point], limit: float) -> Pick:
    """The most plastic point whose forgetting keeps within the limit: the upper end of its interval, where known.

    Args:
        points: candidates, in any order.
        limit: highest forgetting rate allowed, percent.

    Raises:
        ValueError: a number that is not finite, or no point within the limit.
    """
    check_points(points)
    if not np.isfinite(limit):
        raise ValueError(f"limit is {limit!r}; allowed: a finite number, in percent")
    within = [index for index, point in enumerate(points) if point.bound <= limit]
    if not within:
        least = min(points, key=lambda point: point.bound)
        raise ValueError(
            f"no point forgets at most {limit:g} %: the least forgetful one, {describe(least)}, may forget "
            f"{least.bound:.2f} %; raise the limit or search on"
        )
    order = _by_plasticity(points, within)
    sentences = (
        f"Picked {describe(points[order[0]])}: the most plastic of the {len(within)} of {len(points)} points "
        f"whose forgetting is at most {limit:g} %.",
        _bound_sentence(points),
        _runner_up_sentence(points, order),
        *_limit_sentences(points, order[0], limit),
    )
    return make_pick(order, f"most plasticity with forgetting <= {limit:g} %", sentences)


def _by_plasticity(points: Sequence[Point], indices: Sequence[int]) -> list[int]:
    def worth(index: int) -> tuple[float, float, str]:
        return (-points[index].plasticity, points[index].bound, points[index].name)

    return sorted(indices, key=worth)


def _bound_sentence(points: Sequence[Point]) -> str:
    """Where the bounds come from, or that they are unknown."""
    unknown = sum(point.forgetting_interval is None for point in points)
    known = (
        "The limit applies to the upper end of the 95 % interval of forgetting, from a bootstrap of the recordings "
        "that is paired with the base; what another seed would change is not in it."
    )
    if not unknown:
        return known
    if unknown == len(points):
        return "The limit applies to the measured rate: no interval is known, and other recordings may give more."
    return f"{known} Of {unknown} points it is unknown, and their measured rate is taken."


def _runner_up_sentence(points: Sequence[Point], order: Sequence[int]) -> str:
    if len(order) < 2:
        return "No other point keeps within the limit."
    gap = points[order[0]].plasticity - points[order[1]].plasticity
    return f"Runner-up: {describe(points[order[1]])}, {gap:.2f} points less plastic."


def _limit_sentences(points: Sequence[Point], picked: int, limit: float) -> list[str]:
    """Which other limits would pick another point."""
    chosen = points[picked]
    beyond = [i for i, p in enumerate(points) if p.bound > limit and p.plasticity > chosen.plasticity]
    below = [i for i, point in enumerate(points) if point.bound < chosen.bound]
    sentences = []
    if beyond:
        loosest = min(points[i].bound for i in beyond)
        other = _by_plasticity(points, [i for i in beyond if points[i].bound == loosest])[0]
        sentences.append(f"A limit of {loosest:.2f} % would pick {describe(points[other])}.")
    else:
        sentences.append("No higher limit would change the choice.")
    if below:
        other = _by_plasticity(points, below)[0]
        sentences.append(f"A limit below {chosen.bound:.2f} % would pick {describe(points[other])}.")
    return sentences
