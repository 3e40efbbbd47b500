"""One file of a corpus, checked in a worker: read once, hashed, and decoded to its end.

Imported by worker processes: no Arrow here.
"""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple

from sonar.data.audio import check_audio, file_sha256, probe_audio
from sonar.data.audio_errors import AudioError, Kind
from sonar.data.storage import PathError, Stat, contained, is_url, read_bytes, stat

HELD_BYTES = 64 * 2**20  # a larger local file is read twice, hash and audio, and not held in memory


class Job(NamedTuple):
    """A file below a root; `known` is its version when it was last checked."""

    root: str
    file: str
    known: Stat | None


class Checked(NamedTuple):
    """What is known of a file.

    Attributes:
        stat: its version; None where that could not be told, or the file not be read.
        sha256: of its bytes; empty when they cannot be read.
        seconds: length: decoded for a good file, else as its header declares it, or None.
        sample_rate: Hz; 0 for a bad file.
        channels: 0 for a bad file.
        reason: why it is bad; empty for a good one.
        kind: class of the reason.
    """

    stat: Stat | None
    sha256: str = ""
    seconds: float | None = None
    sample_rate: int = 0
    channels: int = 0
    reason: str = ""
    kind: Kind = "corrupt"


def check_file(job: Job) -> Checked | None:
    """Check one file; None when it is still the version that is known. No content makes this raise."""
    version: Stat | None = None
    sha256, source = "", None
    try:
        path = contained(job.file, job.root)
        version = _version(path)
        if version == job.known and version.stamp:
            return None
        source = _content(path, version.size)
        sha256 = hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else file_sha256(source)
        info = check_audio(source, job.file)
    except PathError as error:
        return Checked(None, reason=str(error), kind="outside")
    except AudioError as error:
        lasting = None if error.kind == "missing" else version
        seconds = 0.0 if error.kind in ("empty", "no samples") else _declared_seconds(source)
        return Checked(lasting, sha256, seconds, reason=str(error), kind=error.kind)
    return Checked(version, sha256, info.duration_s, info.sample_rate, info.channels)


def _version(path: str) -> Stat:
    try:
        return stat(path)
    except FileNotFoundError as error:
        raise AudioError("no such file", "missing") from error
    except OSError as error:
        raise AudioError(f"cannot be read: {error}", "missing") from error


def _content(path: str, size: int) -> bytes | str:
    """The bytes of a file that is worth holding in memory, else its path."""
    if not is_url(path) and (size > HELD_BYTES or size == 0 or not os.path.isfile(path)):
        return path
    try:
        return read_bytes(path)
    except OSError as error:
        raise AudioError(f"cannot be read: {error}", "missing") from error


def _declared_seconds(source: bytes | str | None) -> float | None:
    """What a broken file says of its length, if its header can be read and is not absurd."""
    try:
        return None if source is None else probe_audio(source).duration_s or None
    except AudioError:
        return None
