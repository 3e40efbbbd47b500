"""Dropout: how often, how large, where the gradient goes, and what it draws from."""

import math

import pytest
import torch

from sonar.model.dropout import dropout

COUNT = 200_003  # no multiple of the four draws of a word


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.999])
def test_the_share_that_is_zeroed_is_the_rate(rate: float) -> None:
    zeros = int((dropout(torch.ones(COUNT), rate, True) == 0).sum())
    assert abs(zeros - rate * COUNT) < 4 * math.sqrt(rate * (1 - rate) * COUNT)


def test_values_are_zeroed_one_by_one() -> None:
    zeroed = (dropout(torch.ones(COUNT), 0.3, True) == 0).double()
    for distance in range(1, 9):  # draws of the same word, and of the next
        both = float((zeroed[distance:] * zeroed[:-distance]).mean())
        assert both == pytest.approx(0.3**2, abs=4 * math.sqrt(0.09 * 0.91 / COUNT))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_is_kept_is_scaled_so_that_the_mean_stays(dtype: torch.dtype) -> None:
    values = torch.randn(7, 33, dtype=dtype)
    dropped = dropout(values, 0.25, True)
    assert dropped.dtype == dtype and dropped.shape == values.shape
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], values[kept] / 0.75)


def test_the_gradient_passes_where_the_value_did() -> None:
    values = torch.randn(500, requires_grad=True)
    dropped = dropout(values, 0.5, True)
    dropped.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, (dropped != 0) * 2.0)


def test_it_draws_from_the_global_generator_alone() -> None:
    first, second = (dropout(torch.ones(99), 0.5, True) for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(dropout(torch.ones(99), 0.5, True), first)


def test_nothing_is_zeroed_at_rate_zero_or_outside_training() -> None:
    values = torch.randn(99)
    assert torch.equal(dropout(values, 0.0, True), values)
    assert torch.equal(dropout(values, 0.5, False), values)


def test_an_odd_view_and_an_empty_tensor_are_dropped_from_as_others() -> None:
    assert dropout(torch.ones(6, 5).t()[1:], 0.5, True).unique().tolist() == [0.0, 2.0]
    assert dropout(torch.ones(0, 3), 0.5, True).shape == (0, 3)
