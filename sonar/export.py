"""The adapted encoder where others expect it: a Microsoft-layout file."""

from __future__ import annotations

from pathlib import Path

import torch

from sonar.checkpoint import Checkpoint, export_microsoft, load_checkpoint
from sonar.data.audio import seconds_to_samples
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
        ValueError: the reloaded encoder differs by more than `PARITY_TOLERANCE`; an older file
            at `path` stays.
    """
    unchecked = path.with_name(f".{path.name}.unchecked")
    export_microsoft(checkpoint, unchecked)
    reloaded = load_checkpoint(unchecked)
    noise = torch.randn(1, seconds_to_samples(PARITY_SECONDS), generator=torch.Generator().manual_seed(0)) * 0.1
    with torch.no_grad():
        before, after = (c.encoder.eval()(log_mel(noise, c.encoder.config.fbank)).last for c in (checkpoint, reloaded))
    difference = float((before - after).abs().max())
    if not difference <= PARITY_TOLERANCE:
        unchecked.unlink()
        raise ValueError(f"the exported encoder differs by {difference:.1e} (allowed {PARITY_TOLERANCE}); not kept")
    unchecked.replace(path)
    return difference
