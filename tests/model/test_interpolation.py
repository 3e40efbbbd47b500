"""Weights between two models: the ends bit for bit, and a straight line between."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sonar.model.interpolation import interpolated

State = dict[str, torch.Tensor]


def states() -> tuple[State, State]:
    """Two states with values that a careless formula would not give back: -0.0, huge beside tiny."""
    draws = torch.Generator().manual_seed(0)
    start, end = ({"a": torch.randn(50, generator=draws), "b": torch.randn(4, 3, generator=draws)} for _ in range(2))
    start["a"][:3] = torch.tensor([-0.0, 1e30, 1e-30])
    end["a"][:3] = torch.tensor([0.0, 1e-30, -0.0])
    return start, end


def bits(state: State) -> dict[str, list[int]]:
    return {name: value.flatten().view(torch.int32).tolist() for name, value in state.items()}


@pytest.mark.parametrize("alpha", [0, 0.0, 1, 1.0])
def test_the_ends_come_back_bit_for_bit_and_as_copies(alpha: float) -> None:
    start, end = states()
    expected = end if alpha else start
    found = interpolated(start, end, alpha)
    assert bits(found) == bits(expected)
    found["a"].zero_()
    assert bits(expected) == bits(states()[int(alpha)])


def assert_near(found: torch.Tensor, expected: torch.Tensor, start: torch.Tensor, end: torch.Tensor) -> None:
    """Within float32's rounding of the larger end: near an end of 1e30, no place is exact to its own size."""
    error = (found.double() - expected.double()).abs()
    assert bool((error <= 1e-6 * torch.maximum(start.abs(), end.abs()).double()).all())


@given(alpha=st.floats(0, 1))
def test_every_place_lies_on_the_straight_line(alpha: float) -> None:
    start, end = states()
    for name, value in interpolated(start, end, alpha).items():
        theta0, theta = start[name].double(), end[name].double()
        assert_near(value, theta0 + alpha * (theta - theta0), start[name], end[name])


@given(alpha=st.floats(0, 1), beta=st.floats(0, 1))
def test_the_way_to_a_place_on_the_way_is_the_product(alpha: float, beta: float) -> None:
    start, end = states()
    twice = interpolated(start, interpolated(start, end, alpha), beta)
    for name, value in interpolated(start, end, alpha * beta).items():
        assert_near(twice[name], value, start[name], end[name])


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_no_place_lies_outside(alpha: float) -> None:
    with pytest.raises(ValueError, match=rf"alpha is {alpha}; it must lie in \[0, 1\]"):
        interpolated(*states(), alpha)


def test_models_of_two_architectures_are_refused() -> None:
    start, end = states()
    for other in ({"a": end["a"]}, end | {"b": torch.zeros(3, 4)}):
        with pytest.raises(ValueError, match="differ in names or shapes; give two of one architecture"):
            interpolated(start, other, 0.5)
