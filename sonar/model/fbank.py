"""Waveform to normalised Kaldi log-mel: batched, float32, on the waveform's device.

The front end of BEATs (arXiv:2212.09058), equal to Kaldi's `compute-fbank-feats` without dither.
"""

# Shapes: B clips, T samples, F frames, M mel bins, S samples of a frame, C clips and N frames of a block, Q FFT bins.

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

SAMPLE_RATE = 16_000  # Hz
FRAME_SAMPLES = 400  # 25 ms
HOP_SAMPLES = 160  # 10 ms
FFT_SAMPLES = 512
PATCH_SIZE = 16  # frames and mel bins of a patch
MIN_SAMPLES = FRAME_SAMPLES + (PATCH_SIZE - 1) * HOP_SAMPLES  # 2800: one column of patches
LOW_HZ, HIGH_HZ = 20.0, 8000.0
PREEMPHASIS = 0.97
ENERGY_FLOOR = 2.0**-23  # float32 epsilon, Kaldi's
WAVE_SCALE = 2.0**15  # Kaldi works on int16 values
CPU_BLOCK_FRAMES = 512  # of a thread: its arrays (4 MB) stay in the cache; smaller blocks pay more for the calls
MEL_BAND = 16  # mel bins of one matrix product


@dataclass(frozen=True, kw_only=True)
class FbankConfig:
    """Constants of the front end that belong to a checkpoint.

    Source: BEATs, arXiv:2212.09058; mean and std are the AudioSet statistics of its public code.
    """

    num_mel_bins: int = 128  # a multiple of the 16-bin patch
    mean: float = 15.41663  # natural log of energy
    std: float = 6.55582  # natural log of energy; the feature is divided by twice this

    def __post_init__(self) -> None:
        """Raise ValueError for constants that no front end can have."""
        if self.num_mel_bins < PATCH_SIZE or self.num_mel_bins % PATCH_SIZE:
            raise ValueError(f"num_mel_bins is {self.num_mel_bins}: give a positive multiple of {PATCH_SIZE}")
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise ValueError(f"mean is {self.mean} and std is {self.std}: both must be finite, std above 0")


class MelBand(NamedTuple):
    """Consecutive mel bins and the only spectrum bins that they touch."""

    first: int  # first spectrum bin
    last: int  # one past the last spectrum bin
    weight: Tensor  # (last - first, mel bins of the band) float32


def num_frames(num_samples: int) -> int:
    """Frames of a clip: whole windows only (Kaldi's snip_edges)."""
    return max(0, 1 + (num_samples - FRAME_SAMPLES) // HOP_SAMPLES)


def num_patches(num_samples: int, num_mel_bins: int = 128) -> int:
    """Patches of a clip; trailing frames that do not fill a patch are dropped. 10 s have 496."""
    return num_frames(num_samples) // PATCH_SIZE * (num_mel_bins // PATCH_SIZE)


def log_mel(waveform: Tensor, config: FbankConfig) -> Tensor:
    """Normalised log-mel energies, never part of a gradient.

    Args:
        waveform: (B, T) floating, 16 kHz mono in [-1, 1]; T at least 2800 (one column of patches).
        config: mel bins and normalisation.

    Returns:
        (B, F, M) float32 with F = 1 + (T - 400) // 160; silence is -2.39 with the default constants.

    Raises:
        ValueError: for another shape or a clip that is too short.

    Source: Kaldi fbank (povey window, pre-emphasis 0.97, DC removal per frame); BEATs, arXiv:2212.09058.
    """
    if waveform.ndim != 2:
        raise ValueError(f"waveform has shape {tuple(waveform.shape)}: give (clips, samples)")
    if waveform.shape[1] < MIN_SAMPLES:
        raise ValueError(
            f"clips have {waveform.shape[1]} samples: at least {MIN_SAMPLES} "
            f"({MIN_SAMPLES / SAMPLE_RATE} s) are needed for one column of patches; pad or drop them"
        )
    with torch.no_grad(), torch.autocast(waveform.device.type, enabled=False):
        frames = waveform.float().unfold(1, FRAME_SAMPLES, HOP_SAMPLES)  # (B, F, S), a view
        features = waveform.new_empty(*frames.shape[:2], config.num_mel_bins, dtype=torch.float32)
        block = _block(frames, config)
        for clip in _starts(frames.shape[0], block.num_clips):
            for first in _starts(frames.shape[1], block.num_frames):
                part = slice(clip, clip + block.num_clips), slice(first, first + block.num_frames)
                block.write(frames[part], features[part])
        return features


class _Block:
    """The arrays of a block, made once and used for all of them: only the FFT makes its own (its `out` is a copy)."""

    def __init__(self, num_clips: int, num_frames: int, config: FbankConfig, device: torch.device) -> None:
        self.num_clips, self.num_frames, self.config = num_clips, num_frames, config
        shape = num_clips, num_frames
        self.window = povey_window(device)[1:]  # (S - 1,): the first sample of a frame stays 0, as the window is there
        self.centred = self.window.new_empty(*shape, FRAME_SAMPLES)  # (C, N, S)
        self.padded = self.window.new_zeros(*shape, FFT_SAMPLES)  # (C, N, FFT_SAMPLES)
        self.emphasised = self.padded[..., 1:FRAME_SAMPLES]  # (C, N, S - 1)
        self.power = self.window.new_empty(*shape, FFT_SAMPLES // 2 + 1)  # (C, N, Q)
        self.energies = self.window.new_empty(*shape, config.num_mel_bins)  # (C, N, M)
        power, energies = self.power.flatten(0, 1), self.energies.flatten(0, 1)  # (C N, Q), (C N, M)
        bands = mel_bands(config.num_mel_bins, device)
        places = energies.split([band.weight.shape[1] for band in bands], 1)
        self.products = [
            (power[:, band.first : band.last], band.weight, place) for band, place in zip(bands, places, strict=True)
        ]

    def write(self, frames: Tensor, features: Tensor) -> None:
        """Features of frames (C, N, S) into their place (C, N, M). Every step is Kaldi's, in its order."""
        torch.sub(frames, frames.mean(-1, keepdim=True), out=self.centred)
        torch.sub(self.centred[..., 1:], self.centred[..., :-1], alpha=PREEMPHASIS, out=self.emphasised)
        self.emphasised *= self.window
        spectrum = torch.view_as_real(torch.fft.rfft(self.padded)).square_()  # (C, N, Q, 2)
        torch.add(spectrum[..., 0], spectrum[..., 1], out=self.power)
        for power, weight, energies in self.products:
            torch.mm(power, weight, out=energies)
        self.energies.clamp_(min=ENERGY_FLOOR).log_().sub_(self.config.mean)
        torch.div(self.energies, 2 * self.config.std, out=features)


def _block(frames: Tensor, config: FbankConfig) -> _Block:
    """On a GPU the whole batch. On a CPU equal parts of one clip: a clip's features do not depend on its batch."""
    num_clips, num_frames, _ = frames.shape
    if frames.device.type == "cpu":
        num_blocks = math.ceil(num_frames / (CPU_BLOCK_FRAMES * torch.get_num_threads()))
        num_clips, num_frames = 1, math.ceil(num_frames / num_blocks)
    return _Block(max(1, num_clips), num_frames, config, frames.device)


def _starts(total: int, size: int) -> list[int]:
    """Where blocks of one size begin that cover everything; the last may overlap the one before."""
    return [min(start, total - size) for start in range(0, total, size)]


@lru_cache(maxsize=8)
def povey_window(device: torch.device) -> Tensor:
    """Kaldi's window times the int16 scale: (S,) float32."""
    hann = torch.hann_window(FRAME_SAMPLES, periodic=False, dtype=torch.float64, device="cpu")
    return (hann.pow(0.85) * WAVE_SCALE).to(device=device, dtype=torch.float32)


def mel_filters(num_mel_bins: int) -> Tensor:
    """Triangles on the mel scale 1127 ln(1 + f / 700): (Q, M); filter 3 of 128 is empty, as in Kaldi."""
    low, high = (1127.0 * math.log1p(hertz / 700.0) for hertz in (LOW_HZ, HIGH_HZ))
    spacing = (high - low) / (num_mel_bins + 1)
    bins_hz = torch.arange(FFT_SAMPLES // 2 + 1, dtype=torch.float64) * (SAMPLE_RATE / FFT_SAMPLES)
    bins_mel = 1127.0 * torch.log1p(bins_hz / 700.0).unsqueeze(1)  # (Q, 1)
    left = low + spacing * torch.arange(num_mel_bins, dtype=torch.float64)  # (M,)
    rising = (bins_mel - left) / spacing  # (Q, M)
    return torch.minimum(rising, 2.0 - rising).clamp_(min=0.0).float()


@lru_cache(maxsize=8)
def mel_bands(num_mel_bins: int, device: torch.device) -> tuple[MelBand, ...]:
    """The mel filters as several small products, twice as fast as one: each touches few spectrum bins."""
    filters = mel_filters(num_mel_bins)  # (Q, M)
    bands = []
    for start in range(0, num_mel_bins, MEL_BAND):
        part = filters[:, start : start + MEL_BAND]
        touched = part.any(1).nonzero().flatten()
        first, last = int(touched[0]), int(touched[-1]) + 1
        bands.append(MelBand(first, last, part[first:last].contiguous().to(device)))
    return tuple(bands)
