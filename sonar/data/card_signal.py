"""What the samples of one clip say: level, silence, clipping and spectrum, at the file's own rate, block by block.

Shapes: C channels, n samples of a block, F frames, Q frequency bins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import soundfile

from sonar.data.audio import SHORT_BY_SECONDS, AudioError, open_audio, seconds_to_samples

ENCODER_HZ = 8_000.0  # half of the 16 kHz of every model here: nothing above it is heard
FLOOR_DBFS = -120.0  # the lowest level told: 24-bit audio ends near -146, 16-bit near -98
SILENT_DBFS = -60.0  # a frame below it is silent
FULL_SCALE = 0.999  # from here on a sample that repeats the one before it is clipped
EDGE_DB = 80.0  # below the strongest bin: above the last bin that reaches it a file holds nothing
ENERGY_SHARE = 0.99
_FRAME_S = 0.05  # of the spectrum, rounded to a power of two: bins about 20 Hz wide at any rate
_KAISER_BETA = 12.0  # side lobes below -90 dB: leakage must not look like a band in use
_BLOCK_VALUES = 2**18  # decoded at a time: memory does not follow the length of a file


class ClipSignal(NamedTuple):
    """Numbers of one clip. Channels are averaged, as for the encoder, but for peak, clipping and offset: the worst one.

    Attributes:
        rms_dbfs: level of the whole clip; a sine at full scale has -3.01.
        peak_dbfs: of the largest sample; above 0 where a lossy codec overshoots.
        clipped: share of samples at full scale that repeat the sample before: flat tops.
        silent: share of frames below -60 dBFS.
        zero: share of samples that are exactly 0: padding, gates, lost packets.
        dc: absolute mean of the samples, of full scale.
        lost: share of energy above 8 kHz; NaN where the rate is 16 kHz or less, or all is 0.
        energy_99_hz: below it lie 99 % of the energy; NaN where all is 0.
        top_hz: the highest frequency within 80 dB of the strongest; NaN where all is 0.
    """

    rms_dbfs: float
    peak_dbfs: float
    clipped: float
    silent: float
    zero: float
    dc: float
    lost: float
    energy_99_hz: float
    top_hz: float


def measure_clip(path: str, start_s: float, duration_s: float) -> ClipSignal:
    """Numbers of the part of a file that a manifest names.

    The spectrum is Welch's: windows of about 50 ms, half overlapping, the mean of each taken out.

    Raises:
        AudioError: as `open_part`, or samples that are not finite, or the file ends before the part does.
    """
    with open_part(path, start_s, duration_s) as part:
        sums = _Sums(part.sample_rate, part.channels)
        for block in part.blocks:
            sums.add(block)
    missing_s = duration_s - sums.num_samples / part.sample_rate
    if missing_s > SHORT_BY_SECONDS or sums.num_samples == 0:
        raise AudioError(f"the file ends {missing_s:.2f} s before the clip does", "truncated")
    return sums.result()


class Part(NamedTuple):
    """A part of a file at its own rate: (n, C) float32 blocks, which end where the file does."""

    sample_rate: int
    channels: int
    blocks: Iterator[np.ndarray]


@contextmanager
def open_part(path: str, start_s: float, duration_s: float) -> Iterator[Part]:
    """The part of a file, or of what lies at a URL, that a manifest names.

    Raises:
        AudioError: as `open_audio`.
    """
    with open_audio(path) as file:
        file.seek(min(seconds_to_samples(start_s, file.samplerate), file.frames))
        num_samples = seconds_to_samples(duration_s, file.samplerate)
        yield Part(file.samplerate, file.channels, _blocks(file, num_samples))


def _blocks(file: soundfile.SoundFile, num_samples: int) -> Iterator[np.ndarray]:
    size = max(1, _BLOCK_VALUES // file.channels)
    while num_samples > 0 and len(block := file.read(min(size, num_samples), dtype="float32", always_2d=True)):
        num_samples -= len(block)
        yield block


class _Sums:
    """Running sums over the blocks of one clip."""

    def __init__(self, rate: int, channels: int) -> None:
        self.num_samples = 0
        self._rate = rate
        self._window = np.kaiser(2 ** round(math.log2(rate * _FRAME_S)), _KAISER_BETA).astype(np.float32)
        self._power = np.zeros(len(self._window) // 2 + 1)  # (Q,)
        self._rest = np.empty(0, dtype=np.float32)  # mono samples that no frame has begun with yet
        self._num_frames = self._num_silent = self._num_zero = 0
        self._square = self._peak = 0.0
        self._sum, self._num_clipped = np.zeros(channels), np.zeros(channels)

    def add(self, block: np.ndarray) -> None:
        """Count a block, (n, C)."""
        size = np.abs(block)
        peak = float(size.max())
        if not math.isfinite(peak):
            raise AudioError("samples that are NaN or infinite", "bad samples")
        mono = block.mean(axis=1, dtype=np.float32)  # (n, C) -> (n,)
        self.num_samples += len(block)
        self._peak = max(self._peak, peak)
        self._sum += block.sum(axis=0, dtype=np.float64)
        self._square += float(np.square(mono, dtype=np.float64).sum())
        self._num_zero += int((mono == 0).sum())
        if peak >= FULL_SCALE:
            flat = (size[1:] >= FULL_SCALE) & (block[1:] == block[:-1])
            self._num_clipped += flat.sum(axis=0)
        self._add_frames(np.concatenate([self._rest, mono]))

    def result(self) -> ClipSignal:
        """The numbers of all blocks."""
        if self._num_frames == 0:  # shorter than a frame
            self._add_frames(np.pad(self._rest, (0, len(self._window) - len(self._rest))))
        lost, energy_99_hz, top_hz = self._spectrum()
        return ClipSignal(
            rms_dbfs=_decibels(math.sqrt(self._square / self.num_samples)),
            peak_dbfs=_decibels(self._peak),
            clipped=float(self._num_clipped.max()) / self.num_samples,
            silent=self._num_silent / self._num_frames,
            zero=self._num_zero / self.num_samples,
            dc=float(np.abs(self._sum).max()) / self.num_samples,
            lost=lost,
            energy_99_hz=energy_99_hz,
            top_hz=top_hz,
        )

    def _add_frames(self, mono: np.ndarray) -> None:
        length, hop = len(self._window), len(self._window) // 2
        if len(mono) < length:
            self._rest = mono
            return
        frames = np.lib.stride_tricks.sliding_window_view(mono, length)[::hop]  # (F, length)
        self._rest = mono[len(frames) * hop :].copy()
        self._num_frames += len(frames)
        self._num_silent += int((np.square(frames).mean(axis=1) < 10 ** (SILENT_DBFS / 10)).sum())
        spectrum = np.fft.rfft((frames - frames.mean(axis=1, keepdims=True)) * self._window, axis=1)  # (F, Q)
        self._power += (np.square(spectrum.real) + np.square(spectrum.imag)).sum(axis=0)

    def _spectrum(self) -> tuple[float, float, float]:
        """Share above 8 kHz, frequency of 99 % of the energy, highest frequency in use; NaN where not known."""
        hertz = np.arange(len(self._power)) * (self._rate / len(self._window))
        energy = self._power * 2  # both halves of the spectrum
        energy[[0, -1]] /= 2
        total = float(energy.sum())
        if total == 0:
            return math.nan, math.nan, math.nan
        known = self._rate > 2 * ENCODER_HZ
        lost = float(energy[hertz > ENCODER_HZ].sum()) / total if known else math.nan
        middle = int((np.cumsum(energy) < ENERGY_SHARE * total).sum())
        used = np.flatnonzero(self._power >= self._power.max() * 10 ** (-EDGE_DB / 10))
        return lost, float(hertz[middle]), float(hertz[used[-1]])


def _decibels(amplitude: float) -> float:
    return max(FLOOR_DBFS, 20 * math.log10(amplitude)) if amplitude > 0 else FLOOR_DBFS
