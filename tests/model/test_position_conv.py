"""The position convolution by FFT is the convolution."""

import pytest
import torch
from torch.nn import functional

from sonar.model.position_conv import PositionConv, convolve_by_fft


@pytest.mark.parametrize("length", [1, 7, 128, 200])
@pytest.mark.parametrize("taps", [1, 15, 16, 128])
def test_by_fft_it_equals_the_definition(generator: torch.Generator, length: int, taps: int) -> None:
    hidden = torch.randn(2, length, 12, generator=generator)
    weight = torch.randn(12, 4, taps, generator=generator)
    expected = torch.zeros(2, length, 12, dtype=torch.float64)
    for tap in range(taps):
        for place in range(length):
            if 0 <= (read := place + tap - taps // 2) < length:
                for group in range(3):
                    own = slice(4 * group, 4 * group + 4)
                    expected[:, place, own] += hidden[:, read, own].double() @ weight[own, :, tap].double().t()
    found = convolve_by_fft(hidden, weight, 3).double()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_values_and_gradients_by_fft_are_those_of_the_layer(generator: torch.Generator) -> None:
    layer = PositionConv(16, 32, 4)
    layer.initialise(generator)
    hidden = torch.randn(3, 50, 16, generator=generator, requires_grad=True)
    weight = layer.direction * (layer.gain / layer.direction.norm(dim=(0, 1), keepdim=True))
    by_fft = functional.gelu(convolve_by_fft(hidden, weight, 4) + layer.bias)
    torch.testing.assert_close(layer(hidden), by_fft, atol=1e-5, rtol=0)
    weights = torch.randn(3, 50, 16, generator=generator)
    inputs = (hidden, layer.direction, layer.gain, layer.bias)
    ours, other = (torch.autograd.grad((out * weights).sum(), inputs) for out in (layer(hidden), by_fft))
    for gradient, expected in zip(ours, other, strict=True):
        torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=1e-4)
