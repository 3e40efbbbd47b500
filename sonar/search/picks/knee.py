"""The knee of the front, where it is one whatever recordings were drawn; pure.

Shapes: R resamples, N points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sonar.search.picks.point import Pick, Point, check_points, describe, distinct_front, hinge_sentence, make_pick

MIN_POINTS = 5
MAX_CHANGED = 0.2  # share of the resamples in which another point may be the knee


def pick_knee(points: Sequence[Point], draws: np.ndarray | None) -> Pick:
    """The front point farthest above the line through the front's two ends, both axes scaled to 0..1.

    Args:
        points: candidates, in any order; dominated ones are left out of the search.
        draws: (R, N, 2) plasticity and forgetting of the points in resamples that they share; None: unknown.

    Raises:
        ValueError: a number that is not finite, fewer than 5 different points on the front, a front that nowhere bulges
            above the line, no draws, or a knee that is another point in more than 20 % of them.
    """
    check_points(points)
    front = distinct_front(points)
    if len(front) < MIN_POINTS:
        raise ValueError(f"the front has {len(front)} different points; a knee needs {MIN_POINTS}: pick by a limit")
    values = np.array([point[1:3] for point in points], dtype=np.float64)
    heights = _heights(values[front])
    order = sorted(range(len(front)), key=lambda place: (-heights[place], points[front[place]].name))
    if heights[order[0]] <= 0:
        raise ValueError("no front point lies above the line between its ends: there is no knee, pick by a limit")
    ranked = [front[place] for place in order]
    changed = _check_stable(points, ranked[0], draws)
    sentences = (
        f"Picked {describe(points[ranked[0]])}: of the {len(front)} front points it lies farthest above "
        f"the line between the front's ends ({heights[order[0]]:.2f} on axes scaled to 0..1).",
        f"It is the knee in {1 - changed:.0%} of the resamples of the recordings.",
        f"Runner-up: {describe(points[ranked[1]])}, {heights[order[1]]:.2f} above the line.",
        hinge_sentence(points, front, ranked[0], lambda left: left[int(np.argmax(_heights(values[left])))]),
    )
    return make_pick(ranked, "knee of the front", sentences)


def _check_stable(points: Sequence[Point], picked: int, draws: np.ndarray | None) -> float:
    """Share of the resamples in which the knee is another point, or none is left."""
    if draws is None:
        raise ValueError(
            "the uncertainty of the points is unknown, so nothing says whether the knee is one: pick by a limit"
        )
    found = [knee_of(values) for values in draws]
    changed = float(np.mean([knee != picked for knee in found]))
    if changed > MAX_CHANGED:
        others = [knee for knee in found if knee is not None and knee != picked]
        rival = f", most often {points[max(set(others), key=others.count)].name!r}" if others else ""
        raise ValueError(
            f"the knee is not stable: {points[picked].name!r} is it on these recordings, and another point or none in "
            f"{changed:.0%} of their resamples{rival} (allowed: {MAX_CHANGED:.0%}); pick by a limit"
        )
    return changed


def knee_of(values: np.ndarray) -> int | None:
    """Row of the knee of (N, 2) points; None where they have none."""
    by_forgetting = np.lexsort((-values[:, 0], values[:, 1]))
    best = np.maximum.accumulate(values[by_forgetting, 0])
    front = by_forgetting[np.concatenate([[True], best[1:] > best[:-1]])]  # each more plastic than all before it
    if len(front) < 3:
        return None
    heights = _heights(values[front])
    return int(front[np.argmax(heights)]) if heights.max() > 0 else None


def _heights(front: np.ndarray) -> np.ndarray:
    """Distance of each front point above the line from the least forgetful to the most plastic one."""
    scaled = (front - front[0]) / (front[-1] - front[0])
    return (scaled[:, 0] - scaled[:, 1]) / np.sqrt(2)
