"""A product by convolution is the product."""

import pytest
import torch

from sonar.model import products
from sonar.model.products import MIN_ROWS, Linear


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> Linear:
    monkeypatch.setattr(products, "BY_CONVOLUTION", True)
    layer = Linear(256, 256)
    with torch.no_grad():
        layer.weight.normal_(generator=generator).div_(16)
        layer.bias.normal_(generator=generator)
    return layer


def convolutions(layer: Linear, rows: torch.Tensor) -> int:
    """How many the layer calls."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        layer(rows)
    return sum(event.count for event in profile.key_averages() if event.key == "aten::conv2d")


def test_values_and_gradients_equal_those_of_the_product(layer: Linear, generator: torch.Generator) -> None:
    rows = torch.randn(3, MIN_ROWS, 256, generator=generator, requires_grad=True)
    weights = torch.randn(3, MIN_ROWS, 256, generator=generator)
    assert convolutions(layer, rows) == 1
    found = layer(rows)
    exact = rows.double() @ layer.weight.double().t() + layer.bias.double()
    torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=0)
    inputs = (rows, layer.weight, layer.bias)
    ours, truth = (torch.autograd.grad((out * weights).sum(), inputs) for out in (found, exact))
    for gradient, true in zip(ours, truth, strict=True):
        torch.testing.assert_close(gradient, true, atol=2e-4, rtol=0)


def test_rows_may_lie_apart_in_memory(layer: Linear, generator: torch.Generator) -> None:
    rows = torch.randn(256, 2, 120, generator=generator).permute(2, 1, 0)
    torch.testing.assert_close(layer(rows), torch.nn.functional.linear(rows, layer.weight, layer.bias))


def test_few_rows_and_other_precisions_stay_with_the_product(layer: Linear) -> None:
    assert convolutions(layer, torch.zeros(MIN_ROWS - 1, 256)) == 0
    with torch.autocast("cpu", torch.bfloat16):
        assert convolutions(layer, torch.zeros(MIN_ROWS, 256)) == 0
    assert convolutions(layer.double(), torch.zeros(MIN_ROWS, 256, dtype=torch.float64)) == 0


def test_values_do_not_hang_on_whether_gradients_are_kept(layer: Linear, generator: torch.Generator) -> None:
    rows = torch.randn(MIN_ROWS, 256, generator=generator)
    with torch.no_grad():
        frozen = layer(rows)
    assert torch.equal(layer(rows), frozen)
