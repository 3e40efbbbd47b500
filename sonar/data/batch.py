"""Audio on its way into a model: what the training loop and the objectives know of data.

Shapes: B clips, T samples.
"""

from __future__ import annotations

from collections.abc import Callable
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
        keys: of the B rows: a name of the very samples, the same whenever they come again; None for a crop that was
            drawn, which does not. Empty: no row has a name.
    """

    waveform: Tensor
    padding: Tensor
    is_replay: Tensor
    clip_ids: tuple[str, ...]
    keys: tuple[str | None, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`; a pinned one travels to a GPU while that computes."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The same batch in memory that a GPU can copy from by itself."""
        return self._with(Tensor.pin_memory)

    def rows(self, begin: int, end: int) -> Batch:
        """Some consecutive rows of it."""
        some = slice(begin, end)
        tensors = self.waveform[some], self.padding[some], self.is_replay[some]
        return Batch(*tensors, self.clip_ids[some], self.keys[some])

    def _with(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Every tensor changed."""
        tensors = change(self.waveform), change(self.padding), change(self.is_replay)
        return Batch(*tensors, self.clip_ids, self.keys)
