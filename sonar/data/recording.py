"""One version of a file, read, hashed and decoded once for all clips that lie in it.

Imported by worker processes: no Arrow here.
"""

from __future__ import annotations

import hashlib
import os
from functools import cached_property
from pathlib import Path

import numpy as np

from sonar.data.audio import SAMPLE_RATE, SHORT_BY_SECONDS, decode_audio, file_sha256, seconds_to_samples
from sonar.data.audio_errors import AudioError
from sonar.data.storage import Stat, is_url, read_bytes, stat

HELD_BYTES = 64 * 2**20  # a larger local file is read twice, hash and audio, and not held in memory

Source = bytes | str | Path  # a file's bytes, or where they lie


class Recording:
    """A file, hashed and decoded when that is first asked for."""

    def __init__(self, source: Source) -> None:
        """`source` as for `decode_audio`."""
        self._source = source

    @cached_property
    def sha256(self) -> str:
        """64 hex digits of its bytes.

        Raises:
            AudioError: as `file_sha256`.
        """
        return source_sha256(self._source)

    @cached_property
    def _waveform(self) -> np.ndarray:
        return decode_audio(self._source)

    def clip(self, start_s: float, duration_s: float) -> np.ndarray:
        """(T,) float32 mono at 16 kHz: a part of it.

        Raises:
            AudioError: as `decode_audio`, or the file ends before the part does.
        """
        begin, length = seconds_to_samples(start_s), seconds_to_samples(duration_s)
        cut = self._waveform[begin : begin + length]
        if len(cut) == 0 or len(cut) < length - seconds_to_samples(SHORT_BY_SECONDS):
            raise clip_too_long(start_s + duration_s, len(self._waveform) / SAMPLE_RATE)
        return cut


def decode_clip(path: Source, start_s: float, duration_s: float) -> np.ndarray:
    """`Recording.clip` of a file of which nothing is kept."""
    return Recording(path).clip(start_s, duration_s)


def clip_too_long(clip_ends_s: float, file_ends_s: float) -> AudioError:
    """The error of a file that ends before its clip does."""
    return AudioError(f"the clip lasts to {clip_ends_s:.2f} s, the file to {file_ends_s:.2f} s", "truncated")


_held: dict[tuple[str, Stat], Recording] = {}  # one at most


def last_recording(path: str) -> Recording:
    """The file at `path`: the same object as the last time, if that was the same version of it.

    The clips of one recording come one after the other: it is decoded for the first of them only. The next one is read
    after it is forgotten, so that two long ones are never held together.

    Raises:
        AudioError: it cannot be reached or read.
    """
    version = version_of(path)
    found = _held.get((path, version)) if version.stamp else None
    if found is None:
        _held.clear()
        found = _held[path, version] = Recording(read_source(path, version.size))
    return found


def version_of(path: str) -> Stat:
    """Size and version of a file.

    Raises:
        AudioError: it is missing or cannot be reached.
    """
    try:
        return stat(path)
    except FileNotFoundError as error:
        raise AudioError("no such file", "missing") from error
    except OSError as error:
        raise AudioError(f"cannot be read: {error}", "missing") from error


def read_source(path: str, size: int) -> bytes | str:
    """The bytes of a file that is worth holding in memory, else its path.

    Raises:
        AudioError: it cannot be read.
    """
    if not is_url(path) and (size > HELD_BYTES or size == 0 or not os.path.isfile(path)):
        return path
    try:
        return read_bytes(path)
    except OSError as error:
        raise AudioError(f"cannot be read: {error}", "missing") from error


def source_sha256(source: Source) -> str:
    """64 hex digits of a file's bytes.

    Raises:
        AudioError: as `file_sha256`.
    """
    return hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else file_sha256(source)
