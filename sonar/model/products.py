"""Float32 products on a CPU by the library that uses all of it.

torch sends matrix products to MKL and convolutions to oneDNN. On a processor that Intel has not made, MKL leaves half
of AVX-512 idle: a 1x1 convolution, which is the same product, took half the time (bench/encoder.py). In bfloat16 both
go to oneDNN already, and under 96 rows or 65,536 weights the call costs more than it saves.
"""

# Shapes: N rows, I inputs, O outputs.

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

MIN_ROWS, MIN_WEIGHTS = 96, 65_536


def _onednn_beats_mkl() -> bool:
    """Whether this processor has AVX-512, torch has both libraries, and MKL would not use it."""
    try:
        made_by_intel = "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False  # not Linux: nothing is known of the maker
    libraries = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return libraries and not made_by_intel and torch.backends.cpu.get_cpu_capability() == "AVX512"


BY_CONVOLUTION = _onednn_beats_mkl()


class Linear(nn.Linear):
    """A linear layer whose product may be a convolution."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        large = self.weight.numel() >= MIN_WEIGHTS
        if not (large and convolution_is_faster(input, input.shape[:-1].numel())):
            return functional.linear(input, self.weight, self.bias)
        rows = input.reshape(-1, self.in_features)
        return _convolved(rows, self.weight, self.bias, 1).view(*input.shape[:-1], self.out_features)


def product_of_heads(rows: Tensor, weights: Tensor) -> Tensor:
    """Of each head the rows times its weights: (H, N, I) and (H, O, I) to (H, N, O).

    In memory the heads lie within the rows, (N, H, O), which is how they come and how they go.
    """
    heads, num_rows, _ = rows.shape
    mixed = _convolved(rows.transpose(0, 1).flatten(1), weights.flatten(0, 1), None, heads)  # (N, H O)
    return mixed.view(num_rows, heads, -1).transpose(0, 1)


def convolution_is_faster(rows: Tensor, num_rows: int) -> bool:
    """Whether a product of so many rows, in the precision of `rows`, is better made by convolution.

    Not in what torch.compile makes: with symbolic sizes torch 2.13 cannot order the strides of such a convolution.
    """
    if not BY_CONVOLUTION or rows.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    if torch.compiler.is_compiling():
        return False
    return num_rows >= MIN_ROWS and rows.dtype == torch.float32


def _convolved(rows: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """(N, groups I) by (O, I) to (N, O), each group of inputs to its own outputs."""
    pixels = rows[None, None].permute(0, 3, 1, 2)  # (1, groups I, 1, N), channels last in memory
    # With one thread torch keeps a plain 1x1 convolution to itself; dilation, which means nothing here, makes it ask
    # oneDNN.
    mixed = functional.conv2d(pixels, weight[:, :, None, None], bias, dilation=2, groups=groups)  # (1, O, 1, N)
    return mixed.permute(0, 2, 3, 1)[0, 0]
