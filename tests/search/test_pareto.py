"""Fronts, ranks and hypervolumes against their definitions; picks against brute force."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonar.search.pareto import (
    Direction,
    Point,
    hypervolume,
    non_dominated,
    nondominated_rank,
    pick_epsilon,
    pick_knee,
)

AXES: tuple[Direction, Direction] = ("max", "min")
# Few different numbers: ties and duplicates are what goes wrong.
coordinates = st.integers(-3, 3).map(float) | st.sampled_from([0.0, -0.0, 1e-9, 1e9])


@st.composite
def clouds(draw: st.DrawFn) -> tuple[list[list[float]], tuple[Direction, ...]]:
    axes = draw(st.integers(1, 4))
    ways: list[Direction] = ["max", "min"]
    directions = tuple(draw(st.lists(st.sampled_from(ways), min_size=axes, max_size=axes)))
    rows = draw(st.lists(st.lists(coordinates, min_size=axes, max_size=axes), max_size=12))
    return rows, directions


def dominates(a: list[float], b: list[float], directions: tuple[Direction, ...]) -> bool:
    signed = [(x, y) if way == "max" else (-x, -y) for x, y, way in zip(a, b, directions, strict=True)]
    return all(x >= y for x, y in signed) and any(x > y for x, y in signed)


@settings(max_examples=60, deadline=None)
@given(clouds())
def test_the_front_is_its_quadratic_definition(
    cloud: tuple[list[list[float]], tuple[Direction, ...]],
) -> None:
    rows, directions = cloud
    expected = [not any(dominates(other, row, directions) for other in rows) for row in rows]
    assert non_dominated(rows, directions).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(clouds())
def test_a_rank_is_one_more_than_the_best_rank_that_dominates(
    cloud: tuple[list[list[float]], tuple[Direction, ...]],
) -> None:
    rows, directions = cloud
    ranks = nondominated_rank(rows, directions).tolist()
    for row, rank in zip(rows, ranks, strict=True):
        above = [r for other, r in zip(rows, ranks, strict=True) if dominates(other, row, directions)]
        assert rank == max(above, default=0) + 1


@settings(max_examples=60, deadline=None)
@given(clouds(), st.randoms(use_true_random=False))
def test_shuffles_and_duplicates_change_nothing(
    cloud: tuple[list[list[float]], tuple[Direction, ...]], shuffler: random.Random
) -> None:
    rows, directions = cloud
    order = list(range(len(rows))) * 2
    shuffler.shuffle(order)
    mixed = [rows[i] for i in order]
    assert non_dominated(mixed, directions).tolist() == [non_dominated(rows, directions)[i] for i in order]
    assert nondominated_rank(mixed, directions).tolist() == [nondominated_rank(rows, directions)[i] for i in order]
    reference = [-4.0 if way == "max" else 4.0 for way in directions]
    assert hypervolume(mixed, directions, reference) == pytest.approx(
        hypervolume(rows, directions, reference), rel=1e-9
    )


@pytest.mark.parametrize("objectives", [1, 2, 3, 5])
def test_one_point_spans_a_box(objectives: int) -> None:
    point = np.arange(1.0, objectives + 1)
    assert hypervolume([point], ["max"] * objectives, np.zeros(objectives)) == math.factorial(objectives)
    assert hypervolume([-point], ["min"] * objectives, np.zeros(objectives)) == math.factorial(objectives)


def test_a_staircase_has_its_closed_form() -> None:
    # n points (i, n + 1 - i), both maximised from (0, 0): 1 + 2 + ... + n unit squares.
    for count in (1, 2, 7, 40):
        steps = [(i, count + 1 - i) for i in range(1, count + 1)]
        assert hypervolume(steps, ["max", "max"], [0, 0]) == pytest.approx(count * (count + 1) / 2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), max_size=8))
def test_hypervolume_counts_the_unit_squares_that_are_dominated(rows: list[tuple[int, int]]) -> None:
    # plasticity up from -2, forgetting down from 3
    squares = sum(any(p >= x + 1 and f <= y - 1 for p, f in rows) for x in range(-2, 5) for y in range(3, -5, -1))
    assert hypervolume(np.array(rows, dtype=float), AXES, [-2, 3]) == pytest.approx(squares)


def test_points_beyond_the_reference_add_nothing() -> None:
    assert hypervolume([[-1, 0], [5, 9]], AXES, [0, 5]) == 0
    assert hypervolume([], AXES, [0, 5]) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_refused_everywhere(bad: float) -> None:
    with pytest.raises(ValueError, match=r"point 1 is \[.*finite"):
        non_dominated([[0.0, 0.0], [bad, 1.0]], AXES)
    with pytest.raises(ValueError, match="finite"):
        nondominated_rank([[bad, 1]], AXES)
    with pytest.raises(ValueError, match="finite"):
        hypervolume([[bad, 1]], AXES, [0, 0])
    with pytest.raises(ValueError, match="reference"):
        hypervolume([[0, 1]], AXES, [bad, 0])
    with pytest.raises(ValueError, match="finite"):
        pick_epsilon([Point("a", bad, 0.0)], 5.0)
    with pytest.raises(ValueError, match="finite"):
        pick_epsilon([Point("a", 0.0, 0.0, bad)], 5.0)
    with pytest.raises(ValueError, match="limit"):
        pick_epsilon([Point("a", 0.0, 0.0)], bad)
    with pytest.raises(ValueError, match="finite"):
        pick_knee([Point("a", 0.0, bad)] * 6)


def test_shapes_and_directions_are_checked() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 3\); allowed: \(N, 2\)"):
        non_dominated([[0, 1, 2]], AXES)
    with pytest.raises(ValueError, match=r"'maximise'.*allowed"):
        non_dominated([[0]], ["maximise"])  # type: ignore[list-item]


points_lists = st.lists(
    st.builds(Point, st.text("abc", max_size=2), coordinates, st.integers(0, 6).map(float), st.none()),
    min_size=1,
    max_size=9,
)


@settings(max_examples=60, deadline=None)
@given(points_lists, st.integers(0, 6), st.randoms(use_true_random=False))
def test_epsilon_takes_the_most_plastic_within_the_limit(
    points: list[Point], limit: int, shuffler: random.Random
) -> None:
    feasible = [point for point in points if point.forgetting_rate <= limit]
    if not feasible:
        with pytest.raises(ValueError, match="no point forgets at most"):
            pick_epsilon(points, limit)
        return
    pick = pick_epsilon(points, limit)
    picked = points[pick.index]
    assert picked.forgetting_rate <= limit
    assert picked.plasticity == max(point.plasticity for point in feasible)
    again = points * 2
    shuffler.shuffle(again)
    assert again[pick_epsilon(again, limit).index][1:] == picked[1:]


def test_epsilon_uses_the_upper_bound_where_it_is_known() -> None:
    points = [Point("sure", 3.0, 4.0, 4.5), Point("unsure", 6.0, 4.0, 5.5)]
    assert pick_epsilon(points, 5.0).index == 0


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


def test_the_knee_of_a_bent_front_is_its_corner() -> None:
    bent = [Point(f"p{i}", p, f) for i, (p, f) in enumerate([(0, 0), (4, 0.5), (8, 1), (9, 5), (10, 10)])]
    dominated = [Point("low", 1.0, 6.0), Point("copy", 8.0, 1.0)]
    pick = pick_knee(bent)
    assert pick.index == 2
    assert "'p2'" in pick.explanation and "Runner-up" in pick.explanation
    mixed = [*dominated, *reversed(bent)]
    assert mixed[pick_knee(mixed).index][1:] == bent[2][1:]


def test_a_knee_that_hangs_on_one_point_says_so() -> None:
    front = [Point(n, p, f) for n, p, f in [("a", 0, 0), ("b", 5, 1), ("c", 12, 6), ("d", 13, 7), ("e", 14, 20)]]
    assert "The choice hangs on 'e'" in pick_knee(front).explanation


def test_too_few_points_or_a_straight_front_have_no_knee() -> None:
    with pytest.raises(ValueError, match="the front has 4 different points; a knee needs 5"):
        pick_knee([Point("a", i, i) for i in range(4)] * 3)
    with pytest.raises(ValueError, match="no knee"):
        pick_knee([Point("a", i, i) for i in range(8)])
