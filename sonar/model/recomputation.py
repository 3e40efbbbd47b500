"""Activations computed again in the backward pass instead of being kept: less memory for more time."""

from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.utils.checkpoint import checkpoint


def recomputed(layer: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The layer, of which a step keeps the inputs only; dropout draws the same both times, on every device.

    Source: activation checkpointing, arXiv:1604.06174.
    """
    return partial(checkpoint, layer, use_reentrant=False)
