"""Weights on the straight line between two models of one architecture: pure."""

from collections.abc import Mapping

import torch
from torch import Tensor


def interpolated(start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """theta0 + alpha (theta - theta0) for every tensor.

    Args:
        start: theta0, a state dict.
        end: theta, the same names and shapes.
        alpha: place on the line, in [0, 1]; 0 gives `start` and 1 gives `end`, bit for bit.

    Returns:
        New tensors on the device of `end`, in its order.

    Raises:
        ValueError: other names or shapes, or an alpha outside [0, 1].

    Source: WiSE-FT, arXiv:2109.01903; weight merging of CultureMERT, for one domain.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it must lie in [0, 1]")
    if start.keys() != end.keys() or any(start[name].shape != end[name].shape for name in end):
        raise ValueError("the two models differ in names or shapes; give two of one architecture")
    if alpha in (0, 1):  # not by the formula: it would turn -0.0 into 0.0
        return {name: (end if alpha else start)[name].to(value.device, copy=True) for name, value in end.items()}
    return {name: torch.lerp(start[name].to(value.device), value, alpha) for name, value in end.items()}
