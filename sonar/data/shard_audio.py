"""The audio of a clip as it lies in a shard: 16 kHz mono 16-bit WAV, or the reason why there is none."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import soundfile

from sonar.data.audio import SAMPLE_RATE
from sonar.data.audio_errors import CHANGED, AudioError, Kind
from sonar.data.recording import decode_clip, last_recording

WAV_HEADER_BYTES = 44  # of the files that are made here


class AudioSlice(NamedTuple):
    """The part of a file that a clip is; see `manifest.Clip`."""

    path: str
    start_s: float
    duration_s: float
    sha256: str


class BadClip(NamedTuple):
    """Why a clip has no audio; settled where the manifest's file was read, so that trying again cannot help."""

    reason: str
    kind: Kind
    settled: bool


Encoded = bytes | BadClip


def encode_slice(asked: AudioSlice) -> Encoded:
    """WAV bytes of a clip; no file makes this raise."""
    try:
        recording = last_recording(asked.path)
        is_same = recording.sha256 == asked.sha256
    except AudioError as error:
        return BadClip(str(error), error.kind, settled=False)
    if not is_same:
        return BadClip(CHANGED, "changed", settled=False)
    try:
        return encode_wav(recording.clip(asked.start_s, asked.duration_s))
    except AudioError as error:
        return BadClip(str(error), error.kind, settled=True)


def decode_middle(asked: tuple[AudioSlice, int]) -> np.ndarray:
    """The samples around the middle of a clip, at most as many as asked for: (T,) float32 at 16 kHz.

    Raises:
        AudioError: the file cannot be decoded.
    """
    clip, num_samples = asked
    return middle(decode_clip(clip.path, clip.start_s, clip.duration_s), num_samples)


def middle(wave: np.ndarray, num_samples: int) -> np.ndarray:
    """At most `num_samples` around the middle."""
    return wave[max(0, (len(wave) - num_samples) // 2) :][:num_samples]


def encode_wav(waveform: np.ndarray) -> bytes:
    """16-bit WAV of (T,) float samples at 16 kHz."""
    # Scaled by hand: a 16-bit file comes back bit by bit, and overshoot is clipped and not wrapped.
    samples = np.clip(np.rint(waveform * 32768), -32768, 32767).astype("<i2")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
