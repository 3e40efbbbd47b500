"""A grouped convolution over a sequence of which few places are filled and read: the visible patches.

With a quarter of the patches visible it took a quarter of the products; of a bf16 step of the model stage on a CPU a
tenth is saved against the convolution over all patches, in float32 nothing is lost.
"""

# Shapes: B clips, L patches, V visible ones, D width, G groups, C channels of a group (D = G C), K taps of the kernel.

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def visible_convolution(hidden: Tensor, weight: Tensor, visible: Tensor) -> Tensor:
    """What conv1d with padding K // 2 gives at the visible patches, by products over their surroundings alone.

    Args:
        hidden: (B, L, D), 0 wherever no patch is visible; only visible patches get a gradient.
        weight: (D, C, K).
        visible: (B, V) int64 patch indices; repeated ones are fillers.

    Returns:
        (B, V, D) in autocast's precision, where it is on.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    result: Tensor = _VisibleConvolution.apply(hidden, weight, visible)  # type: ignore[no-untyped-call]
    return result


class _VisibleConvolution(torch.autograd.Function):
    """The surroundings of each visible patch as a row (made again for the gradient), times the taps as a matrix."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, visible: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight, visible)
        channels, taps = weight.shape[1:]
        matrix = weight.unflatten(0, (-1, channels)).permute(0, 3, 2, 1).flatten(1, 2)  # (G, K C, C)
        return _joined(torch.bmm(_surroundings(hidden, visible, channels, taps, taps // 2), matrix), visible)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        hidden, weight, visible = ctx.saved_tensors
        channels, taps = weight.shape[1:]
        groups = weight.shape[0] // channels
        rows = gradient.flatten(0, 1).unflatten(1, (groups, channels)).transpose(0, 1)  # (G, B V, C)
        around = _surroundings(hidden, visible, channels, taps, taps // 2)  # (G, B V, K C)
        of_matrix = torch.bmm(around.transpose(1, 2), rows)  # (G, K C, C)
        of_weight = of_matrix.unflatten(1, (taps, channels)).permute(0, 3, 2, 1).flatten(0, 1)  # (D, C, K)
        if not ctx.needs_input_grad[0]:
            return None, of_weight, None
        places = visible.unsqueeze(-1).expand_as(gradient)
        placed = torch.zeros_like(hidden).scatter_add_(1, places, gradient)  # (B, L, D)
        around = _surroundings(placed, visible, channels, taps, taps - 1 - taps // 2)  # (G, B V, K C)
        matrix = weight.flip(2).unflatten(0, (groups, channels)).permute(0, 3, 1, 2).flatten(1, 2)  # (G, K C, C)
        of_visible = _joined(torch.bmm(around, matrix), visible)  # (B, V, D)
        return torch.zeros_like(hidden).scatter_(1, places, of_visible), of_weight, None


def _surroundings(hidden: Tensor, visible: Tensor, channels: int, taps: int, before: int) -> Tensor:
    """(G, B V, K C): the K places around each visible patch, `before` of them before it, 0 beyond the ends."""
    clips, length = hidden.shape[:2]
    by_group = hidden.unflatten(2, (-1, channels)).permute(2, 0, 1, 3)  # (G, B, L, C)
    padded = functional.pad(by_group, (0, 0, before, taps - before)).contiguous()  # (G, B, L + K, C)
    groups, span = len(padded), length + taps
    count = groups * clips * span - taps + 1
    windows = padded.as_strided((count, taps * channels), (channels, 1))  # overlapping rows of the same memory
    first = torch.arange(groups * clips, device=visible.device).view(groups, clips, 1) * span  # (G, B, 1)
    return windows.index_select(0, (first + visible).flatten()).unflatten(0, (groups, -1))


def _joined(rows: Tensor, visible: Tensor) -> Tensor:
    """(G, B V, C) to (B, V, D)."""
    return rows.transpose(0, 1).flatten(1).unflatten(0, tuple(visible.shape))
