"""One file of a corpus, checked in a worker: read once, hashed, and decoded to its end.

Imported by worker processes: no Arrow here.
"""

from __future__ import annotations

from typing import NamedTuple

from sonar.data.audio import check_audio, probe_audio
from sonar.data.audio_errors import AudioError, Kind
from sonar.data.recording import read_source, source_sha256, version_of
from sonar.data.storage import PathError, Stat, contained


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
        version = version_of(path)
        if version == job.known and version.stamp:
            return None
        source = read_source(path, version.size)
        sha256 = source_sha256(source)
        info = check_audio(source, job.file)
    except PathError as error:
        return Checked(None, reason=str(error), kind="outside")
    except AudioError as error:
        lasting = None if error.kind == "missing" else version
        seconds = 0.0 if error.kind in ("empty", "no samples") else _declared_seconds(source)
        return Checked(lasting, sha256, seconds, reason=str(error), kind=error.kind)
    return Checked(version, sha256, info.duration_s, info.sample_rate, info.channels)


def _declared_seconds(source: bytes | str | None) -> float | None:
    """What a broken file says of its length, if its header can be read and is not absurd."""
    try:
        return None if source is None else probe_audio(source).duration_s or None
    except AudioError:
        return None
