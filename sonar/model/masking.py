"""Which patches of each clip are hidden from the encoder: pure, drawn from a generator."""

# Shapes: B clips, L patches, V visible patches of the clip that has most, N masked patches of all clips.

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Mask(NamedTuple):
    """One draw of hidden patches; padded patches are neither masked nor visible."""

    masked: Tensor  # (B, L) bool, True where the encoder sees nothing and the predictor must guess
    visible: Tensor  # (B, V) int64, sorted patch indices; fillers repeat the last patch
    visible_padding: Tensor  # (B, V) bool, True for fillers
    rows: Tensor  # (N,) int64, where the masked patches are in (B L), clip by clip


def random_mask(padding: Tensor, ratio: float, generator: torch.Generator) -> Mask:
    """Hide a fixed share of each clip's patches, drawn uniformly without replacement.

    Args:
        padding: (B, L) bool, True where padded.
        ratio: share of the non-padded patches to hide, in (0, 1); each clip hides round(ratio * n) of its n,
            but always at least one and never all.
        generator: draws on its own device.

    Returns:
        `Mask` on the device of `padding`. It is drawn on the CPU, as its sizes are read: a GPU is waited for once.

    Raises:
        ValueError: if the ratio would hide all or none, or a clip has fewer than two unpadded patches.

    Source: BEATs, arXiv:2212.09058, masked audio modelling (ratio 0.75).
    """
    if not 0 < ratio < 1:
        raise ValueError(f"mask ratio is {ratio}: it must lie inside (0, 1), to hide some patches but not all")
    device, padding = padding.device, padding.cpu()
    num_real = (~padding).sum(1, keepdim=True)  # (B, 1)
    too_short = (num_real < 2).flatten().nonzero().flatten().tolist()
    if too_short:
        raise ValueError(f"clips {too_short} of the batch have fewer than 2 unpadded patches: drop or lengthen them")
    noise = torch.rand(padding.shape, generator=generator, device=generator.device).cpu()  # (B, L)
    order = noise.masked_fill(padding, math.inf).argsort(dim=1, stable=True)  # (B, L)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(padding.shape[1], device=order.device).expand_as(order)
    )
    masked = rank < num_masked(num_real, ratio)  # (B, L)
    visible, visible_padding = _sorted_indices(~masked & ~padding)
    rows = masked.flatten().nonzero().squeeze(1)  # (N,)
    return Mask(*(part.to(device, non_blocking=True) for part in (masked, visible, visible_padding, rows)))


def num_masked(num_real: Tensor, ratio: float) -> Tensor:
    """How many of so many non-padded patches `random_mask` hides: int64, any shape."""
    return (num_real * ratio).round().long().clamp(min=1).minimum(num_real - 1)


def _sorted_indices(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of each row's True entries (B, V), filled up with the last column, and which are fillers."""
    length = chosen.shape[1]
    columns = torch.arange(length, device=chosen.device)
    most = int(chosen.sum(1).max())
    indices = torch.where(chosen, columns, length).sort(1).values[:, :most]  # (B, V)
    return indices.clamp(max=length - 1), indices == length
