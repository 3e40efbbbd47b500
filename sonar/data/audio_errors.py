"""Why a file is not used: the error of one that cannot be trusted, and the record of one that was left out."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal[
    "missing",  # or cannot be opened
    "outside",  # its path leads out of the corpus
    "not a file",
    "empty",
    "wrong extension",
    "corrupt",
    "truncated",
    "no samples",
    "bad header",  # channels, rate or length that no recording has
    "bad samples",  # NaN, infinite, or far beyond full scale
    "crash",
    "hang",
    "memory",
    "changed",  # since its manifest was made
]
CHANGED = "the file has changed since its manifest was made; scan the corpus again"


class AudioError(ValueError):
    """A file that holds no usable audio; the message is the reason, `kind` its class."""

    def __init__(self, reason: str, kind: Kind = "corrupt") -> None:
        super().__init__(reason)
        self.kind: Kind = kind


class Quarantined(NamedTuple):
    """A file that is left out.

    Attributes:
        path: of the file.
        reason: why, for a reader.
        sha256: of its bytes; empty when they cannot be read.
        kind: class of the reason.
        stratum: `corpus/label`, or the corpus alone.
        seconds: its length as its header or its manifest declares it; None when neither does.
    """

    path: str
    reason: str
    sha256: str
    kind: Kind = "corrupt"
    stratum: str = ""
    seconds: float | None = None
