"""Audio on its way into a model: what the training loop and the objectives know of data.

Shapes: B clips, T samples.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Audio on its way into a model.

    Attributes:
        waveform: (B, T) float32 in [-1, 1].
        padding: (B, T) bool, True where a clip had ended.
        is_replay: (B,) bool, True for clips of the prior corpus.
        clip_ids: of the B clips.
    """

    waveform: Tensor
    padding: Tensor
    is_replay: Tensor
    clip_ids: tuple[str, ...]

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        return Batch(self.waveform.to(device), self.padding.to(device), self.is_replay.to(device), self.clip_ids)

    def rows(self, begin: int, end: int) -> Batch:
        """Some consecutive rows of it."""
        part = slice(begin, end)
        return Batch(self.waveform[part], self.padding[part], self.is_replay[part], self.clip_ids[part])
