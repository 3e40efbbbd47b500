"""What the structure of an audio file says before a decoder sees it: cut off, without channels, or something else.

libsndfile reads what is left of a truncated file without a word.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Mapping
from typing import BinaryIO

from sonar.data.audio_errors import AudioError

_UNKNOWN_LENGTH = 0xFFFFFFFF  # what a program that writes to a pipe declares
_OGG_PAGE_MAX, _OGG_END_OF_STREAM = 65_307, 4
_FORMATS: Mapping[str, frozenset[str]] = {  # suffix -> names that libsndfile has for its content
    ".wav": frozenset({"WAV", "WAVEX", "RF64", "W64"}),
    ".flac": frozenset({"FLAC"}),
    ".ogg": frozenset({"OGG"}),
    ".mp3": frozenset({"MP3", "MPEG"}),
    ".aif": frozenset({"AIFF"}),
    ".aiff": frozenset({"AIFF"}),
}
_KBIT_MPEG1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBIT_MPEG2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_NO_AUDIO = {b"PK\x03\x04": "a ZIP archive", b"%PDF": "a PDF", b"\x1f\x8b": "gzip", b"\x89PNG": "an image"}


def check_whole(raw: BinaryIO) -> None:
    """Refuse a WAV, AIFF or Ogg file that is cut off or has no channels.

    Raises:
        AudioError: it ends before its own structure does.
    """
    raw.seek(0)
    magic = raw.read(12)
    size = raw.seek(0, io.SEEK_END)
    if magic[:4] == b"RIFF" and magic[8:] == b"WAVE":
        _check_chunks(raw, size, "<", b"data")
    elif magic[:4] == b"FORM" and magic[8:] in (b"AIFF", b"AIFC"):
        _check_chunks(raw, size, ">", b"SSND")
    elif magic[:4] == b"OggS":
        _check_last_page(raw, size)


def counts_frames(raw: BinaryIO) -> bool:
    """Whether the number of frames is declared; an MP3 without a Xing or Info header has an estimate only."""
    raw.seek(_mpeg_begin(raw))
    head = raw.read(2)
    if len(head) < 2 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return True  # no MPEG frame
    first_frame = raw.read(256)
    return b"Xing" in first_frame or b"Info" in first_frame


def mpeg_seconds(raw: BinaryIO) -> float:
    """Length of an MP3 by the headers of its frames, one by one; what lies between frames is skipped.

    Source: ISO/IEC 11172-3, 2.4.1.3, and 13818-3 for the lower rates.
    """
    raw.seek(_mpeg_begin(raw))
    content = raw.read()
    position, seconds = 0, 0.0
    while 0 <= position <= len(content) - 4:
        length, lasts_s = _mpeg_frame(content[position : position + 4])
        if length:
            seconds += lasts_s
            position += length
        else:
            position = content.find(b"\xff", position + 1)
    return seconds


def _mpeg_frame(header: bytes) -> tuple[int, float]:
    """Bytes and seconds of a layer III frame; nothing where there is none."""
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3  # version 3 is MPEG-1, 2 MPEG-2, 0 MPEG-2.5
    rate_code, bit_rate_code = header[2] >> 2 & 3, header[2] >> 4
    is_frame = header[0] == 0xFF and header[1] & 0xE0 == 0xE0 and version != 1 and layer == 1
    if not is_frame or rate_code == 3 or bit_rate_code in (0, 15):
        return 0, 0.0
    sample_rate = (44_100, 48_000, 32_000)[rate_code] // {3: 1, 2: 2, 0: 4}[version]
    samples = 1152 if version == 3 else 576
    bit_rate = _KBIT_MPEG1[bit_rate_code] if version == 3 else _KBIT_MPEG2[bit_rate_code]
    return samples * bit_rate * 125 // sample_rate + (header[2] >> 1 & 1), samples / sample_rate


def _mpeg_begin(raw: BinaryIO) -> int:
    """Where frames may begin: behind an ID3 tag."""
    raw.seek(0)
    head = raw.read(10)
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    return 10 + sum(byte << 7 * place for place, byte in enumerate(reversed(head[6:])))


def check_suffix(name: str, content: str) -> None:
    """Refuse a file whose suffix belongs to another format than its `content`, which libsndfile has named.

    Raises:
        AudioError: says what it is.
    """
    suffix = os.path.splitext(name)[1].lower()
    if suffix in _FORMATS and content not in _FORMATS[suffix]:
        raise AudioError(f"its content is {content}, its name ends in {suffix}; rename it", "wrong extension")


def not_audio(raw: BinaryIO) -> str:
    """What a file that no decoder knows holds, `text` say; empty when that cannot be told either."""
    raw.seek(0)
    head = raw.read(512)
    for magic, name in _NO_AUDIO.items():
        if head.startswith(magic):
            return name
    printable = all(32 <= byte < 127 or byte in b"\t\n\r" for byte in head)
    return "text" if printable and not head.startswith((b"RIFF", b"FORM", b"fLaC", b"OggS")) else ""


def _check_chunks(raw: BinaryIO, size: int, byte_order: str, audio_chunk: bytes) -> None:
    """Walk the chunks up to the audio: all of it must be there."""
    position = 12
    while position + 8 <= size:
        raw.seek(position)
        name, length = struct.unpack(byte_order + "4sI", raw.read(8))
        present = size - position - 8
        if name == audio_chunk:
            if length != _UNKNOWN_LENGTH and length > present:
                raise AudioError(f"truncated: {present} of {length} bytes of audio", "truncated")
            return
        channels = raw.read(4)[2:] if name == b"fmt " else raw.read(2) if name == b"COMM" else b"?"
        if channels == b"\0\0":
            raise AudioError("the header declares 0 channels", "bad header")
        position += 8 + length + length % 2


def _check_last_page(raw: BinaryIO, size: int) -> None:
    """The last page of an Ogg file must be whole and marked as the end of the stream."""
    raw.seek(max(0, size - _OGG_PAGE_MAX))
    tail = raw.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if len(page) < 27 or not page[5] & _OGG_END_OF_STREAM:
        raise AudioError("truncated: the last Ogg page does not end the stream", "truncated")
    segments = page[27 : 27 + page[26]]
    if len(segments) < page[26] or len(page) < 27 + len(segments) + sum(segments):
        raise AudioError("truncated: the last Ogg page is cut off", "truncated")
