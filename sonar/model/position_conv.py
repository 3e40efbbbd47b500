"""The convolution that tells the encoder's patches where they are."""

# Shapes: B clips, L patches, D width, G groups, I channels of a group (D = G I), K taps, N length of the FFT, Q bins.

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonar.model.visible_convolution import visible_convolution

FFT_MULTIPLE = 64  # lengths of the FFT are multiples of it, so that their factors are small


class PositionConv(nn.Module):
    """Grouped convolution over the patch sequence, weight-normalised per kernel tap, then GELU."""

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        """Make the weights: direction scaled to `gain` over each tap."""
        super().__init__()
        self.kernel, self.groups = kernel, groups
        self.gain = nn.Parameter(torch.ones(1, 1, kernel))
        self.direction = nn.Parameter(torch.ones(width, width // groups, kernel))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, hidden: Tensor, visible: Tensor | None = None) -> Tensor:
        """(B, L, D) to (B, L, D), or to (B, V, D) for the visible patches (B, V), outside which hidden must be 0."""
        weight = self.direction * (self.gain / _tap_norms(self.direction))  # (D, I, K)
        if visible is not None:
            mixed = visible_convolution(hidden, weight, visible)  # (B, V, D)
        elif hidden.device.type == "cpu":
            mixed = _convolve(hidden, weight, self.groups)  # (B, L, D)
        else:
            mixed = convolve_by_fft(hidden, weight, self.groups)
        return functional.gelu(mixed + self.bias.to(mixed.dtype))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Normal with variance 4 / (kernel D), the gain at its norm (wav2vec 2.0's start)."""
        self.direction.normal_(std=math.sqrt(4.0 / (self.kernel * len(self.bias))), generator=generator)
        self.gain.copy_(_tap_norms(self.direction))
        self.bias.zero_()


def _tap_norms(direction: Tensor) -> Tensor:
    """Euclidean norm of every tap, (D, I, K) to (1, 1, K); on a CPU a fifth of the time of torch's own."""
    return direction.square().sum((0, 1), keepdim=True).sqrt()


def _convolve(hidden: Tensor, weight: Tensor, groups: int) -> Tensor:
    """(B, L, D) by (D, I, K) to (B, L, D), zeros beyond the ends; an even kernel reaches further back than ahead."""
    line = hidden.unsqueeze(1).permute(0, 3, 1, 2)  # (B, D, 1, L), channels last in memory: twice as fast on a CPU
    padding = (0, weight.shape[-1] // 2)
    mixed = functional.conv2d(line, weight.unsqueeze(2), padding=padding, groups=groups)  # (B, D, 1, L or L + 1)
    return mixed[:, :, 0, : hidden.shape[1]].transpose(1, 2)


def convolve_by_fft(hidden: Tensor, weight: Tensor, groups: int) -> Tensor:
    """The same in float32 by products of spectra: cuDNN has no fast kernel for 128 taps of 48 channels.

    On a GPU the convolution took four fifths of a step of the model stage (docs/log.md).
    """
    length, taps = hidden.shape[1], weight.shape[-1]
    size = -(-(length + taps) // FFT_MULTIPLE) * FFT_MULTIPLE  # N
    with torch.autocast(hidden.device.type, enabled=False):
        signal = torch.fft.rfft(hidden.float(), size, dim=1).unflatten(2, (groups, -1))  # (B, Q, G, I)
        kernel = torch.fft.rfft(weight.float(), size).unflatten(0, (groups, -1))  # (G, I out, I in, Q)
        mixed = torch.matmul(signal.permute(1, 2, 0, 3), kernel.permute(3, 0, 2, 1).conj())  # (Q, G, B, I)
        line = torch.fft.irfft(mixed.permute(2, 0, 1, 3).flatten(2), size, dim=1)  # (B, N, D), as if it were a circle
    return line.roll(taps // 2, 1)[:, :length].to(hidden.dtype)
