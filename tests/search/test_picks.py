"""Each rule against brute force, and what it says against what happens."""

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonar.evaluate.bootstrap import Interval
from sonar.search.dominance import hypervolume, non_dominated
from sonar.search.picks.contribution import pick_contribution
from sonar.search.picks.epsilon import pick_epsilon
from sonar.search.picks.knee import knee_of, pick_knee
from sonar.search.picks.point import Pick, Point, distinct_front
from sonar.search.picks.weights import pick_weights, stable_range, worth_of

coordinates = st.integers(-3, 6).map(float)
plain_points = st.builds(Point, st.text("abc", max_size=2), coordinates, coordinates, st.none(), st.none())
bounded_points = st.builds(
    lambda name, plasticity, forgetting, above: Point(
        name, plasticity, forgetting, None, Interval(forgetting - 1, forgetting + above)
    ),
    st.text("abc", max_size=2), coordinates, coordinates, st.integers(0, 3).map(float),
)  # fmt: skip
clouds = st.lists(plain_points | bounded_points, min_size=1, max_size=9)


RULES: dict[str, Callable[[list[Point]], Pick]] = {
    "epsilon": lambda points: pick_epsilon(points, 3.0),
    "weights": lambda points: pick_weights(points, 0.5),
    "contribution": lambda points: pick_contribution(points, (-4.0, 7.0)),
    "knee": lambda points: pick_knee(points, noise(points, 0.0)),
}


def noise(points: list[Point], sigma: float, num: int = 200) -> np.ndarray:
    """Draws of the points that scatter around them."""
    values = np.array([point[1:3] for point in points])
    return values + sigma * np.random.default_rng(0).standard_normal((num, *values.shape))


@settings(max_examples=60)
@given(clouds, st.integers(0, 6), st.randoms(use_true_random=False))
def test_epsilon_takes_the_most_plastic_within_the_limit(
    points: list[Point], limit: int, shuffler: random.Random
) -> None:
    bounds = [p.forgetting_interval.high if p.forgetting_interval else p.forgetting_rate for p in points]
    within = [point for point, bound in zip(points, bounds, strict=True) if bound <= limit]
    if not within:
        with pytest.raises(ValueError, match="no point forgets at most"):
            pick_epsilon(points, limit)
        return
    pick = pick_epsilon(points, limit)
    picked = points[pick.index]
    assert bounds[pick.index] <= limit
    assert picked.plasticity == max(point.plasticity for point in within)
    again = points * 2
    shuffler.shuffle(again)
    assert again[pick_epsilon(again, limit).index].plasticity == picked.plasticity


def test_the_limit_applies_to_the_upper_bound_and_the_paragraph_says_where_it_comes_from() -> None:
    sure = Point("sure", 3.0, 4.0, Interval(1.0, 5.0), Interval(3.0, 4.5))
    unsure, unknown = (
        sure._replace(name="unsure", plasticity=6.0, forgetting_interval=Interval(3.0, 5.5)),
        Point("x", 1, 1),
    )
    pick = pick_epsilon([sure, unsure], 5.0)
    assert (
        pick.index == 0
        and "'sure' (plasticity +3.00 % [1.00 to 5.00], forgetting 4.00 % [3.00 to 4.50])" in pick.explanation
    )
    assert "upper end of the 95 % interval" in pick.explanation and "unknown" not in pick.explanation
    assert "A limit of 5.50 % would pick 'unsure'" in pick.explanation
    assert pick_epsilon([sure, unsure], 5.5).index == 1  # what it says is what happens
    assert "Of 1 points it is unknown" in pick_epsilon([sure, unknown], 5.0).explanation
    assert "no interval is known" in pick_epsilon([unknown], 5.0).explanation


def test_the_explanation_tells_numbers_runner_up_and_what_would_change_it() -> None:
    points = [
        Point("base", 0.0, 0.0),
        Point("mid", 5.25, 2.0),
        Point("best", 6.5, 4.0),
        Point("wild", 9.0, 12.34),
    ]
    pick = pick_epsilon(points, 5.0)
    assert (pick.index, pick.runners_up) == (2, (1, 0))
    assert "'best' (plasticity +6.50 %, forgetting 4.00 %)" in pick.explanation
    assert "3 of 4 points" in pick.explanation
    assert "Runner-up: 'mid' (plasticity +5.25 %, forgetting 2.00 %), 1.25 points less plastic" in pick.explanation
    assert "A limit of 12.34 % would pick 'wild'" in pick.explanation
    assert "A limit below 4.00 % would pick 'mid'" in pick.explanation
    for limit, name in ((12.34, "wild"), (3.99, "mid")):  # what it says is what happens
        assert points[pick_epsilon(points, limit).index].name == name


BENT = [Point(f"p{i}", p, f) for i, (p, f) in enumerate([(0, 0), (4, 0.5), (8, 1), (9, 5), (10, 10)])]


def test_the_knee_of_a_bent_front_is_its_corner() -> None:
    mixed = [Point("low", 1.0, 6.0), Point("copy", 8.0, 1.0), *reversed(BENT)]
    for points in (BENT, mixed):
        pick = pick_knee(points, noise(points, 0.0))
        assert points[pick.index][1:] == BENT[2][1:]
        assert "is the knee in 100% of the resamples" in pick.explanation and "Runner-up" in pick.explanation


def test_a_knee_that_other_recordings_would_move_is_refused() -> None:
    assert "is the knee in 9" in pick_knee(BENT, noise(BENT, 0.5)).explanation
    with pytest.raises(
        ValueError, match=r"not stable: 'p2' is it .* in \d\d% of their resamples, most often 'p\d' \(allow"
    ):
        pick_knee(BENT, noise(BENT, 4.0))
    with pytest.raises(ValueError, match="uncertainty of the points is unknown"):
        pick_knee(BENT, None)


def test_a_knee_that_hangs_on_one_point_says_so() -> None:
    front = [Point(n, p, f) for n, p, f in [("a", 0, 0), ("b", 5, 1), ("c", 12, 6), ("d", 13, 7), ("e", 14, 20)]]
    assert "The choice hangs on 'e'" in RULES["knee"](front).explanation


def test_too_few_points_or_a_straight_front_have_no_knee() -> None:
    with pytest.raises(ValueError, match="the front has 4 different points; a knee needs 5"):
        RULES["knee"]([Point("a", i, i) for i in range(4)] * 3)
    with pytest.raises(ValueError, match="no knee"):
        RULES["knee"]([Point("a", i, i) for i in range(8)])


@settings(max_examples=80)
@given(st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=8))
def test_the_knee_is_the_highest_front_point_above_the_line_between_the_ends(rows: list[tuple[float, float]]) -> None:
    values = np.array(rows)
    front = sorted({tuple(row) for row in values[non_dominated(values, ("max", "min"))].tolist()}, key=lambda r: r[1])
    found = knee_of(values)
    if len(front) < 3:
        assert found is None
        return
    (p0, f0), (p1, f1) = front[0], front[-1]
    height = {row: (row[0] - p0) / (p1 - p0) - (row[1] - f0) / (f1 - f0) for row in front}
    highest = max(height.values())
    assert (found is None) == (highest <= 1e-12)
    if found is not None:
        assert height[tuple(values[found].tolist())] == pytest.approx(highest)


@settings(max_examples=80)
@given(clouds, st.integers(0, 12).map(lambda quarter: quarter / 4))
def test_weights_take_the_highest_worth_and_tell_which_weights_would_not(points: list[Point], weight: float) -> None:
    pick = pick_weights(points, weight)
    worths = [p.plasticity - weight * p.forgetting_rate for p in points]
    assert worths[pick.index] == max(worths)
    edges = stable_range(points, pick.index)
    assert edges.low <= weight <= edges.high
    for other in np.linspace(0.01, 9.9, 67):  # none of them is a crossing of whole numbers
        best = max(worth_of(point, other) for point in points)
        assert (worth_of(points[pick.index], other) >= best - 1e-9) == (edges.low <= other <= edges.high)
    for edge, beyond, step in ((edges.low, edges.below, -1e-6), (edges.high, edges.above, 1e-6)):
        if beyond is not None:
            best = max(worth_of(point, edge + step) for point in points)
            assert worth_of(points[beyond], edge + step) == pytest.approx(best, abs=1e-12)
            assert f"{edge:.3g} would pick '{points[beyond].name}'" in pick.explanation


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_a_weight_is_a_price(weight: float) -> None:
    with pytest.raises(ValueError, match=f"weight is {weight}; allowed"):
        pick_weights(BENT, weight)


@settings(max_examples=80)
@given(clouds, st.tuples(coordinates, coordinates))
def test_a_contribution_is_what_the_hypervolume_loses_without_the_point(
    points: list[Point], reference: tuple[float, float]
) -> None:
    front = distinct_front(points)

    def volume(members: list[int]) -> float:
        return hypervolume([points[index][1:3] for index in members], ("max", "min"), reference)

    lost = {index: volume(front) - volume([i for i in front if i != index]) for index in front}
    if max(lost.values()) == 0:
        with pytest.raises(ValueError, match="no point is better than the reference"):
            pick_contribution(points, reference)
        return
    pick = pick_contribution(points, reference)
    assert lost[pick.index] == pytest.approx(max(lost.values()))
    assert f"would lose {max(lost.values()):.2f} %²" in pick.explanation
    following = [lost[index] for index in pick.runners_up]
    assert following == sorted(following, reverse=True)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_or_no_value_is_refused_by_every_rule(rule: str, bad: float) -> None:
    for point in (Point("a", bad, 0.0), Point("a", 0.0, bad), Point("a", 0.0, 0.0, None, Interval(0.0, bad))):
        with pytest.raises(ValueError, match="allowed: finite values only"):
            RULES[rule]([point] * 6)
    with pytest.raises(ValueError, match="there are no points to pick from"):
        RULES[rule]([])
    with pytest.raises(ValueError, match="limit is"):
        pick_epsilon(BENT, bad)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_names_the_picked_one_a_runner_up_and_what_would_change_it(rule: str) -> None:
    pick = RULES[rule](BENT)
    assert f"Picked {BENT[pick.index].name!r} (plasticity" in pick.explanation
    assert f"Runner-up: {BENT[pick.runners_up[0]].name!r}" in pick.explanation
    assert any(word in pick.explanation for word in ("would pick", "would not change", "hangs on", "would change"))
    assert pick.index not in pick.runners_up
