"""The position convolution of the visible patches against conv1d over all of them."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from sonar.model.visible_convolution import visible_convolution

CLIPS, PATCHES, WIDTH, CHANNELS = 3, 20, 12, 3


def over_all(hidden: Tensor, weight: Tensor, visible: Tensor) -> Tensor:
    sequence = hidden.transpose(1, 2)  # (B, D, L)
    mixed = functional.conv1d(sequence, weight, padding=weight.shape[2] // 2, groups=WIDTH // CHANNELS)
    return mixed[..., :PATCHES].transpose(1, 2).gather(1, visible.unsqueeze(-1).expand(-1, -1, WIDTH))


@pytest.mark.parametrize("taps", [1, 4, 5, 16, 33])
@pytest.mark.parametrize("num_visible", [1, 7, PATCHES])
def test_it_is_conv1d_at_the_visible_patches_with_its_gradients(
    taps: int, num_visible: int, generator: torch.Generator
) -> None:
    visible = torch.rand(CLIPS, PATCHES, generator=generator).argsort(1)[:, :num_visible].sort(1).values
    filled = torch.randn(CLIPS, num_visible, WIDTH, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(WIDTH, CHANNELS, taps, generator=generator, dtype=torch.float64, requires_grad=True)
    places = visible.unsqueeze(-1).expand(-1, -1, WIDTH)
    results = []
    for way in (visible_convolution, over_all):
        hidden = torch.zeros(CLIPS, PATCHES, WIDTH, dtype=torch.float64).scatter(1, places, filled)
        mixed = way(hidden, weight, visible)
        results.append((mixed, *torch.autograd.grad(mixed.sin().sum(), (filled, weight))))
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-12, rtol=1e-12)


def test_fillers_that_are_not_read_change_no_gradient(generator: torch.Generator) -> None:
    visible = torch.tensor([[2, 5, 11]])
    with_fillers = torch.tensor([[2, 5, 11, PATCHES - 1, PATCHES - 1]])
    weight = torch.randn(WIDTH, CHANNELS, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    hidden = torch.zeros(1, PATCHES, WIDTH, dtype=torch.float64)
    hidden[0, visible[0]] = torch.randn(3, WIDTH, generator=generator, dtype=torch.float64)
    hidden.requires_grad_(True)
    results = []
    for given in (visible, with_fillers):
        mixed = visible_convolution(hidden, weight, given)[:, :3]
        of_hidden, of_weight = torch.autograd.grad(mixed.square().sum(), (hidden, weight))
        results.append((mixed, of_hidden[0, visible[0]], of_weight))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def test_autocast_gives_its_precision_and_float32_gradients(generator: torch.Generator) -> None:
    visible = torch.tensor([[0, 3, 9]])
    weight = torch.randn(WIDTH, CHANNELS, 6, generator=generator).requires_grad_(True)
    hidden = torch.zeros(1, PATCHES, WIDTH).index_fill(1, visible[0], 0.5).requires_grad_(True)
    exact = visible_convolution(hidden, weight, visible)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = visible_convolution(hidden, weight, visible)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.05, rtol=0.02)
    for gradient in torch.autograd.grad(rounded.float().sum(), (hidden, weight)):
        assert gradient.dtype == torch.float32
