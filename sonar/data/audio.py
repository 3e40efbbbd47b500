"""Decode audio to 16 kHz mono; anything that cannot be trusted is refused with a reason.

Shapes: T samples, C channels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile
import soxr

from sonar.data.audio_errors import AudioError as AudioError
from sonar.data.audio_errors import Quarantined as Quarantined
from sonar.data.containers import check_suffix, check_whole, counts_frames, mpeg_seconds, not_audio
from sonar.data.storage import is_url, read_bytes
from sonar.files import sha256_of_rest

SAMPLE_RATE = 16_000  # Hz, of every model here
MAX_SECONDS = 4 * 3600.0  # a longer clip is a recording that wants cutting, or a lying header
MIN_RATE, MAX_RATE = 1_000, 1_000_000  # Hz; bat detectors reach 500 kHz
MAX_PEAK = 8.0  # of full scale: lossy codecs overshoot a little, integers stored as floats by thousands
SHORT_BY_SECONDS = 0.05  # a clip may end so much before its manifest says: resampling and headers round
_COUNTED_VALUES = 2**18  # decoded at a time where nothing is kept; measured best of 2**14 to 2**20
_BLOCK_VALUES = 2**20  # decoded at a time, so that memory follows the audio and not what a header declares


class AudioInfo(NamedTuple):
    """What a file's header says: length in seconds, sample rate in Hz, number of channels."""

    duration_s: float
    sample_rate: int
    channels: int


def seconds_to_samples(seconds: float, sample_rate: int = SAMPLE_RATE) -> int:
    """Number of samples in `seconds`; the one place where seconds become samples."""
    return round(seconds * sample_rate)


def decode_audio(source: str | Path | bytes, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Decode a whole file to mono at `sample_rate`.

    A file at `sample_rate` keeps its very samples. Others are resampled by soxr at its high quality: to 16 kHz, from
    8 to 192 kHz, away from the ends, a sine in the lower half of the band that both rates hold keeps amplitude and
    phase within 0.001 % of its amplitude, up to seven eighths of it (7 kHz) within 0.1 %, and what lies above 8.2 kHz
    is 100 dB down.

    Args:
        source: path of a regular file, URL, or a file's bytes. The content decides on the format, not the suffix.
        sample_rate: of the result, Hz.

    Returns:
        (T,) float32 waveform, T > 0, the mean of the channels.

    Raises:
        AudioError: missing, not a regular file, empty, not audio, truncated, without samples, too long, or with
            samples that are not finite or far beyond full scale.
    """
    with _opened(source) as opened:
        blocks = [block.mean(axis=1, dtype=np.float32) for block in _blocks(opened.file)]  # (T, C) -> (T,)
        mono = np.concatenate(blocks)
        opened.refuse_fewer(len(mono))
    if opened.info.sample_rate != sample_rate:
        mono = soxr.resample(mono, opened.info.sample_rate, sample_rate, quality="HQ")
    if len(mono) == 0:
        raise AudioError("no samples", "no samples")
    return np.ascontiguousarray(mono, dtype=np.float32)


def check_audio(source: str | Path | bytes, name: str) -> AudioInfo:
    """Decode a whole file and keep nothing of it: memory does not grow with its length.

    Args:
        source: as for `decode_audio`.
        name: of the file; a suffix of another format is refused.

    Returns:
        Its header, with the length that was decoded.

    Raises:
        AudioError: as `decode_audio`, or the suffix belongs to another format.
    """
    with _opened(source) as opened:
        check_suffix(name, opened.file.format)
        num_frames = _count_frames(opened.file)
        opened.refuse_fewer(num_frames)
    duration_s = num_frames / opened.info.sample_rate
    if seconds_to_samples(duration_s) == 0:
        raise AudioError("no samples", "no samples")
    return opened.info._replace(duration_s=duration_s)


def probe_audio(source: str | Path | bytes) -> AudioInfo:
    """Read the header only.

    Raises:
        AudioError: as `open_audio`.
    """
    with open_audio(source) as file:
        return _header(file)


@contextmanager
def open_audio(source: str | Path | bytes) -> Iterator[soundfile.SoundFile]:
    """A file before its first sample, with a header that is believed.

    Raises:
        AudioError: missing, not a regular file, empty, not audio, or a header beyond what is read here; also where the
            block fails to decode it.
    """
    with _open(source) as raw, _sound_file(source, raw) as file:
        _header(file)
        yield file


def file_sha256(path: str | Path) -> str:
    """64 hex digits of the file's bytes.

    Raises:
        AudioError: missing, not a regular file, or empty.
    """
    with _open(path) as file:
        return sha256_of_rest(file)


class _Opened(NamedTuple):
    """A file before its first sample; `counted` where its header counts its frames and does not guess."""

    file: soundfile.SoundFile
    info: AudioInfo
    counted: bool

    def refuse_fewer(self, num_frames: int) -> None:
        """Refuse a file of which fewer frames were decoded than it declares."""
        if self.counted and num_frames < self.file.frames:
            raise AudioError(f"truncated: {num_frames} of {self.file.frames} samples can be decoded", "truncated")


@contextmanager
def _opened(source: str | Path | bytes) -> Iterator[_Opened]:
    with _open(source) as raw:
        check_whole(raw)
        counted = counts_frames(raw)
        present_s = 0.0 if counted else mpeg_seconds(raw)
        with _sound_file(source, raw) as file:
            info = _header(file)
            _refuse_low_guess(info, present_s)
            yield _Opened(file, info, counted)


def _refuse_low_guess(info: AudioInfo, present_s: float) -> None:
    """Refuse an MP3 that goes on where libsndfile guesses it to end, and stops."""
    if present_s > info.duration_s + SHORT_BY_SECONDS:
        read = f"only {info.duration_s:.1f} of {present_s:.1f} s would be decoded"
        cause = "an MP3 of varying bit rate without a count of its frames; `ffmpeg -i IN -c copy OUT` writes one"
        raise AudioError(f"{read}: {cause}", "bad header")


@contextmanager
def _sound_file(source: str | Path | bytes, raw: BinaryIO) -> Iterator[soundfile.SoundFile]:
    """Opened by its path where it has one, which costs no call into Python per block."""
    raw.seek(0)
    try:
        with soundfile.SoundFile(raw if isinstance(raw, io.BytesIO) else str(source)) as file:
            yield file
    except soundfile.LibsndfileError as error:
        if content := not_audio(raw):
            raise AudioError(f"cannot be decoded: its content is {content}", "wrong extension") from error
        raise AudioError(f"cannot be decoded: {error.error_string.strip()}") from error


def _open(source: str | Path | bytes) -> BinaryIO:
    """The bytes of a regular file that is not empty; a pipe or device is never opened."""
    if is_url(source):  # type: ignore[arg-type]
        source = _fetch(str(source))
    if isinstance(source, bytes):
        if not source:
            raise AudioError("empty file", "empty")
        return io.BytesIO(source)
    path = Path(source)
    if not path.is_file():
        raise AudioError("not a regular file", "not a file") if path.exists() else AudioError("no such file", "missing")
    if path.stat().st_size == 0:
        raise AudioError("empty file", "empty")
    try:
        return path.open("rb")
    except OSError as error:
        raise AudioError(f"cannot be opened: {error.strerror}", "missing") from error


def _fetch(url: str) -> bytes:
    try:
        return read_bytes(url)
    except FileNotFoundError as error:
        raise AudioError("no such file", "missing") from error
    except OSError as error:
        raise AudioError(f"cannot be read: {error}", "missing") from error


def _header(file: soundfile.SoundFile) -> AudioInfo:
    info = AudioInfo(file.frames / file.samplerate, file.samplerate, file.channels)
    if not MIN_RATE <= info.sample_rate <= MAX_RATE:
        raise AudioError(f"sample rate {info.sample_rate} Hz; read are {MIN_RATE} to {MAX_RATE} Hz", "bad header")
    if info.duration_s > MAX_SECONDS:
        raise AudioError(
            f"the header declares {info.duration_s:.0f} s; at most {MAX_SECONDS:.0f} s are read", "bad header"
        )
    return info


def _blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """(T, C) float32 blocks, as long as any can be decoded; the first may be empty."""
    num_frames = max(1, _BLOCK_VALUES // file.channels)
    yield np.empty((0, 1), dtype=np.float32)
    while len(block := file.read(num_frames, dtype="float32", always_2d=True)):
        _check_level(block)
        yield block


def _count_frames(file: soundfile.SoundFile) -> int:
    """How many can be decoded; integers are not looked at, as they are finite and within full scale."""
    integers = file.subtype.startswith("PCM_")
    kind = "int32" if integers else "float32"
    block = np.empty((max(1, _COUNTED_VALUES // file.channels), file.channels), dtype=kind)  # (T, C)
    num_frames = 0
    while num_frames < file.frames and (count := file.buffer_read_into(block, dtype=kind)):
        if not integers:
            _check_level(block[:count])
        num_frames += count
    return num_frames


def _check_level(block: np.ndarray) -> None:
    peak = max(float(block.max()), -float(block.min()))  # NaN if any sample is
    if not np.isfinite(peak):
        raise AudioError("samples that are NaN or infinite", "bad samples")
    if peak > MAX_PEAK:
        raise AudioError(f"samples up to {peak:.0f} times full scale; scale the file to [-1, 1]", "bad samples")
