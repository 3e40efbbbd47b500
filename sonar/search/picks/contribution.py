"""The rule of the front's own shape: the point that it would lose most without; pure."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np

from sonar.search.picks.point import Pick, Point, check_points, describe, distinct_front, hinge_sentence, make_pick


def pick_contribution(points: Sequence[Point], reference: tuple[float, float]) -> Pick:
    """The front point whose own share of the hypervolume is largest; the others follow, so that a front can be thinned.

    Args:
        points: candidates, in any order.
        reference: plasticity and forgetting that the hypervolume is measured from, percent.

    Raises:
        ValueError: a number that is not finite, or no point better than the reference on both axes.
    """
    check_points(points)
    front = distinct_front(points)

    def shares(members: Sequence[int]) -> np.ndarray:
        values = np.array([points[index][1:3] for index in members], dtype=np.float64)
        return np.asarray(moocore.hv_contributions(values, ref=reference, maximise=[True, False]))

    own = shares(front)
    if own.max() <= 0:
        raise ValueError(
            f"no point is better than the reference (plasticity {reference[0]:.2f} %, forgetting {reference[1]:.2f} %) "
            "on both axes: search on"
        )
    order = sorted(range(len(front)), key=lambda place: (-own[place], points[front[place]].name))
    ranked = [front[place] for place in order]
    sentences = [
        f"Picked {describe(points[ranked[0]])}: without it the hypervolume of the {len(front)} front points would lose "
        f"{own[order[0]]:.2f} %², more than without any other; the intervals do not count in it.",
        f"It is measured from plasticity {reference[0]:.2f} % and forgetting {reference[1]:.2f} %: the farther that "
        "point lies, the more the ends of the front count.",
    ]
    if len(ranked) > 1:
        sentences.append(f"Runner-up: {describe(points[ranked[1]])}, {own[order[1]]:.2f} %².")
        sentences.append(hinge_sentence(points, front, ranked[0], lambda left: left[int(np.argmax(shares(left)))]))
    return make_pick(ranked, "largest share of the hypervolume", sentences)
