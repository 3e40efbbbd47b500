"""Numbers of single clips -> what is told of a corpus and of each of its classes (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sonar.data.card_counts import by_class
from sonar.data.card_signal import ClipSignal
from sonar.data.manifest import Clip

HALF = 0.5  # share of its energy that a clip must have above 8 kHz to count as half lost
NARROW = 0.8  # of what the rate allows: MP3 at 128 kbit/s ends at 0.73, a rate that was doubled at 0.5
CLIPPED = 1e-3  # share of clipped samples from which on a clip counts as clipped
MOSTLY_SILENT = 0.9  # share of silent frames
OFFSET = 0.01  # of full scale
TOLD = 0.05  # median share lost from which on the verdict names a class
_WORST = 3  # classes that the verdict names


@dataclass(frozen=True, kw_only=True)
class Lost:
    """Share of the energy above 8 kHz, which a 16 kHz encoder cannot hear, over the clips where it is known.

    Attributes:
        clips: where it is known: those of a file with a higher rate than 16 kHz, and not all zero.
        median: of the shares; None where no clip is known.
        p90: nine clips in ten lose no more.
        half: clips that lose half of their energy or more.
    """

    clips: int
    median: float | None
    p90: float | None
    half: int


@dataclass(frozen=True, kw_only=True)
class Sound:
    """What the measured clips of one class, or of all, sound like; medians are None where no clip was measured.

    Attributes:
        corpus: of the class; empty for all.
        label: the class; empty for all, and for clips without a label.
        clips: that were measured.
        lost: above 8 kHz.
        rms_dbfs: median level.
        peak_dbfs: median of the peaks.
        clipped: clips with 0.1 % of clipped samples or more.
        silent: median share of silent frames, those below -60 dBFS.
        mostly_silent: clips with 90 % of silent frames or more.
        zero: median share of samples that are exactly 0.
        offset: clips with a DC offset of 1 % of full scale or more.
        energy_99_hz: median of the frequency below which 99 % of the energy lie.
        top_hz: median of the highest frequency in use.
        narrow: clips that use less than 80 % of the band that their rate allows.
    """

    corpus: str
    label: str
    clips: int
    lost: Lost
    rms_dbfs: float | None
    peak_dbfs: float | None
    clipped: int
    silent: float | None
    mostly_silent: int
    zero: float | None
    offset: int
    energy_99_hz: float | None
    top_hz: float | None
    narrow: int


@dataclass(frozen=True, kw_only=True)
class Sounds:
    """Of all measured clips, and of each class, in the order of the counts; what is lost above 8 kHz in a sentence."""

    verdict: str
    all: Sound
    classes: tuple[Sound, ...]


def summarise_sounds(clips: Sequence[Clip], signals: np.ndarray) -> Sounds:
    """What measured clips sound like; a clip with several labels counts in each of their classes.

    Args:
        clips: (n) that were measured.
        signals: (n, 9) float64, a row of `ClipSignal` for each.
    """
    rows = {clip.clip_id: row for row, clip in enumerate(clips)}
    classes = [
        _sound(members, signals[[rows[clip.clip_id] for clip in members]], corpus, label)
        for (corpus, label), members in sorted(by_class(clips).items())
    ]
    every = _sound(clips, signals)
    return Sounds(verdict=_verdict(every, classes), all=every, classes=tuple(classes))


def _verdict(every: Sound, classes: Sequence[Sound]) -> str:
    known = [(one.lost.median, one.label or "clips without a label") for one in classes if one.lost.median is not None]
    if every.lost.median is None:
        return "What lies above 8 kHz is not known: no file has a rate above 16 kHz, what was there is gone."
    losing = sorted((one for one in known if one[0] >= TOLD), reverse=True)[:_WORST]
    most = "; most in " + ", ".join(f"{label} {share:.0%}" for share, label in losing) if losing else ""
    return (
        f"A 16 kHz encoder does not hear {every.lost.median:.0%} of the energy of the median clip{most}. "
        f"Known for {every.lost.clips} of {every.clips} clips, those of files above 16 kHz."
    )


def _sound(clips: Sequence[Clip], signals: np.ndarray, corpus: str = "", label: str = "") -> Sound:
    of = dict(zip(ClipSignal._fields, signals.T, strict=True))
    nyquist = np.asarray([clip.sample_rate / 2 for clip in clips])
    return Sound(
        corpus=corpus,
        label=label,
        clips=len(clips),
        lost=_lost(of["lost"]),
        rms_dbfs=_median(of["rms_dbfs"]),
        peak_dbfs=_median(of["peak_dbfs"]),
        clipped=int((of["clipped"] >= CLIPPED).sum()),
        silent=_median(of["silent"]),
        mostly_silent=int((of["silent"] >= MOSTLY_SILENT).sum()),
        zero=_median(of["zero"]),
        offset=int((of["dc"] >= OFFSET).sum()),
        energy_99_hz=_median(of["energy_99_hz"]),
        top_hz=_median(of["top_hz"]),
        narrow=int((of["top_hz"] < NARROW * nyquist).sum()),
    )


def _lost(shares: np.ndarray) -> Lost:
    known = shares[~np.isnan(shares)]
    return Lost(
        clips=len(known),
        median=_median(known),
        p90=float(np.quantile(known, 0.9, method="higher")) if len(known) else None,
        half=int((known >= HALF).sum()),
    )


def _median(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else None
