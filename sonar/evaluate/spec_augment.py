"""SpecAugment on log-mel features: spans of frames and of bands that a model does not get to see.

Shapes: B clips, F frames, M mel bins.
"""

import torch
from torch import Tensor


def spec_augment(log_mel: Tensor, time_mask: float, mel_mask: float, generator: torch.Generator) -> Tensor:
    """Hide one span of frames and one of bands in every clip.

    Args:
        log_mel: (B, F, M), normalised, so that 0 is about the mean of all audio.
        time_mask: the widest span of frames, a share; each width up to it is as likely.
        mel_mask: the same of the bands.
        generator: on the CPU.

    Returns:
        (B, F, M), 0 where hidden.

    Source: SpecAugment, arXiv:1904.08779, one mask each, without time warping.
    """
    num_clips, num_frames, num_bands = log_mel.shape
    frames = _spans(num_clips, num_frames, time_mask, generator).unsqueeze(2)  # (B, F, 1)
    bands = _spans(num_clips, num_bands, mel_mask, generator).unsqueeze(1)  # (B, 1, M)
    return log_mel.masked_fill((frames | bands).to(log_mel.device), 0.0)


def _spans(num_clips: int, length: int, share: float, generator: torch.Generator) -> Tensor:
    """(B, length) bool, True within one span of each row."""
    width = (torch.rand(num_clips, 1, generator=generator) * (int(share * length) + 1)).long()
    begin = (torch.rand(num_clips, 1, generator=generator) * (length - width + 1)).long()
    place = torch.arange(length)
    return (place >= begin) & (place < begin + width)
