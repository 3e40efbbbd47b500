"""A batch of audio on its way into the models.

Shapes: B clips, T samples, F frames, M mel bins, L patches.
"""

from typing import NamedTuple

from torch import Tensor

from sonar.model.encoder import patch_padding
from sonar.model.fbank import FbankConfig, log_mel, num_frames, num_patches


class Inputs(NamedTuple):
    """What every model takes: log_mel (B, F, M); padding (B, L), True where a patch is padded."""

    log_mel: Tensor
    padding: Tensor


def model_inputs(waveform: Tensor, sample_padding: Tensor, fbank: FbankConfig) -> Inputs:
    """Front end of every model.

    Args:
        waveform: (B, T) float32 in [-1, 1], 16 kHz.
        sample_padding: (B, T) bool, True where padded.
        fbank: constants of the checkpoint's front end.

    Raises:
        ValueError: T is too short for a patch, or a clip is padding only.
    """
    padding = _patch_padding(sample_padding, fbank)  # (B, L), first: its check waits for the GPU
    return Inputs(log_mel(waveform, fbank), padding)


def num_real_patches(sample_padding: Tensor, fbank: FbankConfig) -> Tensor:
    """Patches of each clip that are no padding, from (B, T) sample padding alone: (B,) int64."""
    return (~_patch_padding(sample_padding, fbank)).sum(1)


def _patch_padding(sample_padding: Tensor, fbank: FbankConfig) -> Tensor:
    """(B, T) to (B, L)."""
    num_samples = sample_padding.shape[1]
    return patch_padding(sample_padding, num_frames(num_samples), num_patches(num_samples, fbank.num_mel_bins)).patch
