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
        if not _worthwhile(input, self.weight):
            return functional.linear(input, self.weight, self.bias)
        rows = input.reshape(1, 1, -1, self.in_features).permute(0, 3, 1, 2)  # (1, I, 1, N), channels last
        # With one thread torch keeps a plain 1x1 convolution to itself; dilation, which means nothing here, makes
        # it ask oneDNN.
        mixed = functional.conv2d(rows, self.weight[:, :, None, None], self.bias, dilation=2)  # (1, O, 1, N)
        return mixed.permute(0, 2, 3, 1).view(*input.shape[:-1], self.out_features)


def _worthwhile(rows: Tensor, weight: Tensor) -> bool:
    """Whether a product of rows (..., I) by weight (O, I) is better made by convolution."""
    if not BY_CONVOLUTION or rows.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    large = rows.shape[:-1].numel() >= MIN_ROWS and weight.numel() >= MIN_WEIGHTS
    return large and rows.dtype == weight.dtype == torch.float32
