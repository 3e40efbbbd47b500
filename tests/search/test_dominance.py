"""Fronts, ranks and hypervolumes against their definitions."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonar.search.dominance import Direction, hypervolume, non_dominated, nondominated_rank

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


def test_shapes_and_directions_are_checked() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 3\); allowed: \(N, 2\)"):
        non_dominated([[0, 1, 2]], AXES)
    with pytest.raises(ValueError, match=r"'maximise'.*allowed"):
        non_dominated([[0]], ["maximise"])  # type: ignore[list-item]
