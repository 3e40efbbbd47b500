"""Decode audio to 16 kHz mono; anything that cannot be trusted is refused with a reason.

Shapes: T samples, C channels.
"""

from __future__ import annotations

import hashlib
import io
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile
import soxr

SAMPLE_RATE = 16_000  # Hz, of every model here
MAX_SECONDS = 4 * 3600.0  # a longer clip is a recording that wants cutting, or a lying header
MIN_RATE, MAX_RATE = 1_000, 1_000_000  # Hz; bat detectors reach 500 kHz
MAX_PEAK = 8.0  # of full scale: lossy codecs overshoot a little, integers stored as floats by thousands
SHORT_BY_SECONDS = 0.05  # a clip may end so much before its manifest says: resampling and headers round
_BLOCK_VALUES = 2**20  # decoded at a time, so that memory follows the audio and not what a header declares
_UNKNOWN_LENGTH = 0xFFFFFFFF  # what a program that writes to a pipe declares
_OGG_PAGE_MAX, _OGG_END_OF_STREAM = 65_307, 4


class AudioError(ValueError):
    """A file that holds no usable audio; the message is the reason."""


class AudioInfo(NamedTuple):
    """What a file's header says: length in seconds, sample rate in Hz, number of channels."""

    duration_s: float
    sample_rate: int
    channels: int


class Quarantined(NamedTuple):
    """A file that is left out: its path, the reason, and its sha256 (empty when it cannot be read)."""

    path: str
    reason: str
    sha256: str


def seconds_to_samples(seconds: float, sample_rate: int = SAMPLE_RATE) -> int:
    """Number of samples in `seconds`; the one place where seconds become samples."""
    return round(seconds * sample_rate)


def decode_audio(source: str | Path | bytes, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Decode a whole file to mono at `sample_rate`.

    Args:
        source: path of a regular file, or its bytes. The content decides on the format, not the suffix.
        sample_rate: of the result, Hz; resampled by soxr at its high quality.

    Returns:
        (T,) float32 waveform, T > 0, the mean of the channels.

    Raises:
        AudioError: missing, not a regular file, empty, not audio, truncated, without samples, too long, or with
            samples that are not finite or far beyond full scale.
    """
    with _open(source) as raw:
        _check_whole(raw)
        counted = _counts_frames(raw)
        raw.seek(0)
        try:
            with soundfile.SoundFile(raw if isinstance(source, bytes) else str(source)) as file:
                info = _header(file)
                mono = _read_mono(file)
                declared = file.frames
        except soundfile.LibsndfileError as error:
            raise AudioError(f"cannot be decoded: {error.error_string.strip()}") from error
    if counted and len(mono) < declared:
        raise AudioError(f"truncated: {len(mono)} of {declared} samples can be decoded")
    if info.sample_rate != sample_rate:
        mono = soxr.resample(mono, info.sample_rate, sample_rate, quality="HQ")
    if len(mono) == 0:
        raise AudioError("no samples")
    return np.ascontiguousarray(mono, dtype=np.float32)


def decode_clip(path: str | Path, start_s: float, duration_s: float) -> np.ndarray:
    """(T,) float32 mono at 16 kHz: the part of a file that a manifest names.

    Raises:
        AudioError: as `decode_audio`, or the file ends before the part does.
    """
    waveform = decode_audio(path)
    begin, length = seconds_to_samples(start_s), seconds_to_samples(duration_s)
    cut = waveform[begin : begin + length]
    if len(cut) == 0 or len(cut) < length - seconds_to_samples(SHORT_BY_SECONDS):
        raise AudioError(
            f"the clip lasts to {start_s + duration_s:.2f} s, the file to {len(waveform) / SAMPLE_RATE:.2f} s"
        )
    return cut


def probe_audio(path: str | Path) -> AudioInfo:
    """Read the header only.

    Raises:
        AudioError: missing, not a regular file, empty, not audio, or a header beyond what is read here.
    """
    with _open(path):
        try:
            with soundfile.SoundFile(str(path)) as file:
                return _header(file)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"cannot be decoded: {error.error_string.strip()}") from error


def file_sha256(path: str | Path) -> str:
    """64 hex digits of the file's bytes.

    Raises:
        AudioError: missing, not a regular file, or empty.
    """
    digest = hashlib.sha256()
    with _open(path) as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _open(source: str | Path | bytes) -> BinaryIO:
    """The bytes of a regular file that is not empty; a pipe or device is never opened."""
    if isinstance(source, bytes):
        size, path = len(source), None
    else:
        path = Path(source)
        if not path.is_file():
            raise AudioError("not a regular file" if path.exists() else "no such file")
        size = path.stat().st_size
    if size == 0:
        raise AudioError("empty file")
    if path is None:
        return io.BytesIO(source)  # type: ignore[arg-type]
    try:
        return path.open("rb")
    except OSError as error:
        raise AudioError(f"cannot be opened: {error.strerror}") from error


def _header(file: soundfile.SoundFile) -> AudioInfo:
    info = AudioInfo(file.frames / file.samplerate, file.samplerate, file.channels)
    if not MIN_RATE <= info.sample_rate <= MAX_RATE:
        raise AudioError(f"sample rate {info.sample_rate} Hz; read are {MIN_RATE} to {MAX_RATE} Hz")
    if info.duration_s > MAX_SECONDS:
        raise AudioError(f"the header declares {info.duration_s:.0f} s; at most {MAX_SECONDS:.0f} s are read")
    return info


def _read_mono(file: soundfile.SoundFile) -> np.ndarray:
    """(T,) float32, T being what can be decoded."""
    blocks = [np.empty(0, dtype=np.float32)]
    num_frames = max(1, _BLOCK_VALUES // file.channels)
    while len(block := file.read(num_frames, dtype="float32", always_2d=True)):  # (T, C)
        peak = float(np.abs(block).max())
        if not np.isfinite(peak):
            raise AudioError("samples that are NaN or infinite")
        if peak > MAX_PEAK:
            raise AudioError(f"samples up to {peak:.0f} times full scale; scale the file to [-1, 1]")
        blocks.append(block.mean(axis=1, dtype=np.float32))  # (T, C) -> (T,)
    return np.concatenate(blocks)


def _check_whole(raw: BinaryIO) -> None:
    """Refuse a WAV, AIFF or Ogg file that is cut off: libsndfile reads what is left without a word.

    Raises:
        AudioError: it ends before its own structure does.
    """
    magic = raw.read(12)
    size = raw.seek(0, io.SEEK_END)
    if magic[:4] == b"RIFF" and magic[8:] == b"WAVE":
        _check_chunks(raw, size, "<", b"data")
    elif magic[:4] == b"FORM" and magic[8:] in (b"AIFF", b"AIFC"):
        _check_chunks(raw, size, ">", b"SSND")
    elif magic[:4] == b"OggS":
        _check_last_page(raw, size)


def _check_chunks(raw: BinaryIO, size: int, byte_order: str, audio_chunk: bytes) -> None:
    """Walk the chunks up to the audio: all of it must be there."""
    position = 12
    while position + 8 <= size:
        raw.seek(position)
        name, length = struct.unpack(byte_order + "4sI", raw.read(8))
        present = size - position - 8
        if name == audio_chunk:
            if length != _UNKNOWN_LENGTH and length > present:
                raise AudioError(f"truncated: {present} of {length} bytes of audio")
            return
        position += 8 + length + length % 2


def _check_last_page(raw: BinaryIO, size: int) -> None:
    """The last page of an Ogg file must be whole and marked as the end of the stream."""
    raw.seek(max(0, size - _OGG_PAGE_MAX))
    tail = raw.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if len(page) < 27 or not page[5] & _OGG_END_OF_STREAM:
        raise AudioError("truncated: the last Ogg page does not end the stream")
    segments = page[27 : 27 + page[26]]
    if len(segments) < page[26] or len(page) < 27 + len(segments) + sum(segments):
        raise AudioError("truncated: the last Ogg page is cut off")


def _counts_frames(raw: BinaryIO) -> bool:
    """Whether the number of frames is declared; an MP3 without a Xing or Info header has an estimate only."""
    raw.seek(0)
    head = raw.read(10)
    if head[:3] == b"ID3" and len(head) == 10:
        tag_size = sum(byte << 7 * place for place, byte in enumerate(reversed(head[6:])))
        raw.seek(10 + tag_size)
        head = raw.read(2)
    if len(head) < 2 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return True  # no MPEG frame
    first_frame = raw.read(256)
    return b"Xing" in first_frame or b"Info" in first_frame
