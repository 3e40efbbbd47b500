"""Dominance, ranks and hypervolume; pure.

Shapes: N points, M objectives.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import moocore
import numpy as np
import numpy.typing as npt

Direction: TypeAlias = Literal["max", "min"]


def non_dominated(values: npt.ArrayLike, directions: Sequence[Direction]) -> npt.NDArray[np.bool_]:
    """Which points no other point dominates; of equal points either all are marked or none.

    Args:
        values: (N, M) float, finite.
        directions: M of "max" or "min".

    Returns:
        (N,) bool.

    Raises:
        ValueError: a value that is not finite, or shapes that do not fit.
    """
    points = _checked(values, directions)
    if not len(points):
        return np.zeros(0, dtype=np.bool_)
    kept = moocore.is_nondominated(points, maximise=_maximise(directions), keep_weakly=True)
    return np.asarray(kept, dtype=np.bool_)


def nondominated_rank(values: npt.ArrayLike, directions: Sequence[Direction]) -> npt.NDArray[np.int64]:
    """Which front a point is on: 1 is the front itself, 2 the front without it, and so on.

    Args:
        values: (N, M) float, finite.
        directions: M of "max" or "min".

    Returns:
        (N,) int64; equal points have equal ranks.

    Raises:
        ValueError: as `non_dominated`.
    """
    points = _checked(values, directions)
    ranks = np.zeros(len(points), dtype=np.int64)
    left = np.arange(len(points))
    rank = 1
    while len(left):
        front = non_dominated(points[left], directions)
        ranks[left[front]] = rank
        left = left[~front]
        rank += 1
    return ranks


def front_order(values: npt.ArrayLike, directions: Sequence[Direction]) -> list[int]:
    """Rows from the best to the worst: by front, within a front as an epsilon-net takes them.

    Args:
        values: (N, M) float, finite.
        directions: M of "max" or "min".

    Returns:
        Every row once; only rows with equal values depend on the order given.
    """
    points = np.asarray(values, dtype=np.float64)
    ranks = nondominated_rank(points, directions)
    fronts = [np.flatnonzero(ranks == rank) for rank in np.unique(ranks)]
    return [int(rows[place]) for rows in fronts for place in _net_order(points[rows])]


def hypervolume(values: npt.ArrayLike, directions: Sequence[Direction], reference: npt.ArrayLike) -> float:
    """Volume dominated by the points and bounded by the reference point; points beyond it add nothing.

    Args:
        values: (N, M) float, finite.
        directions: M of "max" or "min".
        reference: (M,) float, finite.

    Raises:
        ValueError: as `non_dominated`, or a reference that does not fit.
    """
    points = _checked(values, directions)
    corner = np.asarray(reference, dtype=np.float64)
    if corner.shape != (len(directions),) or not np.isfinite(corner).all():
        raise ValueError(f"reference is {reference!r}; allowed: {len(directions)} finite numbers")
    if not len(points):
        return 0.0
    return float(moocore.hypervolume(points, ref=corner, maximise=_maximise(directions)))


def _net_order(points: npt.NDArray[np.float64]) -> list[int]:
    """Places of the points of a front: the highest first objective, then always the one farthest from those taken."""
    spread = np.ptp(points, axis=0)
    scaled = points / np.where(spread > 0, spread, 1.0)
    taken = [max(range(len(points)), key=lambda place: tuple(points[place]))]
    nearest = np.full(len(points), np.inf)
    while len(taken) < len(points):
        nearest = np.minimum(nearest, np.linalg.norm(scaled - scaled[taken[-1]], axis=1))
        left = [place for place in range(len(points)) if place not in taken]
        taken.append(max(left, key=lambda place: (nearest[place], *points[place])))
    return taken


def _checked(values: npt.ArrayLike, directions: Sequence[Direction]) -> npt.NDArray[np.float64]:
    points = np.asarray(values, dtype=np.float64)
    unknown = [direction for direction in directions if direction not in ("max", "min")]
    if unknown or not directions:
        raise ValueError(f"directions are {list(directions)!r}; allowed: one 'max' or 'min' per objective")
    if points.size == 0:
        return points.reshape(0, len(directions))
    if points.ndim != 2 or points.shape[1] != len(directions):
        raise ValueError(f"values have shape {points.shape}; allowed: (N, {len(directions)})")
    bad = ~np.isfinite(points).all(axis=1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(f"point {row} is {points[row].tolist()}; allowed: finite values only")
    return points + 0.0  # -0.0 becomes 0.0


def _maximise(directions: Sequence[Direction]) -> list[bool]:
    return [direction == "max" for direction in directions]
