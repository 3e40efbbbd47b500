"""The adapted encoder where others expect it: a Microsoft-layout file."""

from __future__ import annotations

from pathlib import Path

import torch

from sonar.checkpoint import Checkpoint, export_microsoft, load_checkpoint
from sonar.model.fbank import log_mel

PARITY_SECONDS = 2.0
PARITY_TOLERANCE = 1e-5


def export_beats(checkpoint: Checkpoint, path: Path) -> float:
    """Write the encoder as `{'cfg', 'model'}` for existing BEATs code, reload it and compare features.

    Args:
        checkpoint: whose encoder is written.
        path: file to write.

    Returns:
        Largest absolute difference of the features of a noise clip.

    Raises:
        ValueError: the reloaded encoder differs by more than `PARITY_TOLERANCE`; the file is removed.
    """
    export_microsoft(checkpoint, path)
    reloaded = load_checkpoint(path)
    noise = torch.randn(1, int(16_000 * PARITY_SECONDS), generator=torch.Generator().manual_seed(0)) * 0.1
    with torch.no_grad():
        before, after = (c.encoder.eval()(log_mel(noise, c.encoder.config.fbank)).last for c in (checkpoint, reloaded))
    difference = float((before - after).abs().max())
    if not difference <= PARITY_TOLERANCE:
        path.unlink()
        raise ValueError(f"the exported encoder differs by {difference:.1e} (allowed {PARITY_TOLERANCE}); not kept")
    return difference
