"""The same audio twice: by file, by what it decodes to, and by what can be heard; within and across splits."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from sonar.data.audio import AudioError, Quarantined
from sonar.data.manifest import SPLITS, Clip
from sonar.data.near_duplicates import MIN_DISTINCT, MIN_FRAMES, Fingerprint, fingerprint, index_in_parts
from sonar.data.recording import last_recording

Run = Callable[[Callable[[Clip], Any], Iterable[Clip]], Iterable[Any]]  # as `map`, in order


class Duplicate(NamedTuple):
    """Two clips that are the same audio.

    Attributes:
        kind: "file", the same bytes and part of them; "audio", other bytes that decode to the same samples, as FLAC
            and WAV of one recording do; "near", what sounds the same (see `near_duplicates`).
        one: a clip; of a pair across splits the one to leave out, of train rather than dev, of dev rather than test.
        other: the other clip.
        error_rate: share of the bits of the fingerprints that differ where they overlap; 0 unless near.
        offset_s: where in `one` the other begins, seconds; 0 unless near.
    """

    kind: str
    one: Clip
    other: Clip
    error_rate: float = 0.0
    offset_s: float = 0.0

    @property
    def across_splits(self) -> bool:
        """Whether the clips stand in different splits."""
        return self.one.split != self.other.split


class DuplicateReport(NamedTuple):
    """What was found, and what could not be looked at.

    Attributes:
        num_clips: that were asked for.
        duplicates: pairs. Of clips that are exactly alike, each is paired with the first of each split only.
        too_short: clips that are too short to fingerprint, under 0.42 s: only exact duplicates of them are found.
        featureless: likewise longer clips that are silent but for less than that, or in which nothing changes.
        unreadable: clips that cannot be decoded.
    """

    num_clips: int
    duplicates: tuple[Duplicate, ...]
    too_short: tuple[Clip, ...]
    featureless: tuple[Clip, ...]
    unreadable: tuple[Quarantined, ...]

    def across_splits(self) -> list[Duplicate]:
        """The pairs that stand in different splits: what leaks."""
        return [pair for pair in self.duplicates if pair.across_splits]

    def within_splits(self) -> list[Duplicate]:
        """The pairs that stand in one split: they weigh a sound twice."""
        return [pair for pair in self.duplicates if not pair.across_splits]


class _Print(NamedTuple):
    """What is kept of a clip: 64 hex digits of its samples, and its fingerprint."""

    audio_sha256: str
    fingerprint: Fingerprint


def duplicate_report(clips: Sequence[Clip], *, run: Run = map) -> DuplicateReport:
    """Find the clips that are the same audio.

    Args:
        clips: with splits, of one manifest, or of all that train and evaluate together.
        run: maps a function over the clips in order, elsewhere if it likes; that decodes and takes most of the time.
            An item may also be an `AudioError`, as a guarded pool of processes gives for a decoder that crashed.

    Returns:
        Pairs in order of the clips. 5 bytes per 10 ms of audio are held, and an index of at most
        `near_duplicates.FRAMES_PER_INDEX` frames at a time.
    """
    prints = list(run(_print, clips))
    readable = [row for row, one in enumerate(prints) if isinstance(one, _Print)]
    exact = _exact(clips, {row: prints[row].audio_sha256 for row in readable})
    near = _near(clips, prints, readable)
    blank = [row for row in readable if not _has_features(prints[row].fingerprint)]
    short = [len(prints[row].fingerprint.words) < MIN_FRAMES for row in blank]
    bad = [(clip, one) for clip, one in zip(clips, prints, strict=True) if isinstance(one, AudioError)]
    return DuplicateReport(
        num_clips=len(clips),
        duplicates=(*exact, *near),
        too_short=tuple(clips[row] for row, is_short in zip(blank, short, strict=True) if is_short),
        featureless=tuple(clips[row] for row, is_short in zip(blank, short, strict=True) if not is_short),
        unreadable=tuple(Quarantined(clip.path, str(error), clip.sha256) for clip, error in bad),
    )


def _print(clip: Clip) -> _Print | AudioError:
    try:
        waveform = last_recording(clip.path).clip(clip.start_s, clip.duration_s)
    except AudioError as error:
        return error
    samples = waveform + np.float32(0)  # -0.0 and 0.0 are one sample
    return _Print(hashlib.sha256(samples.tobytes()).hexdigest(), fingerprint(waveform))


def _has_features(one: Fingerprint) -> bool:
    said = one.words[one.informative]
    return len(said) >= MIN_FRAMES and len(np.unique(said)) >= MIN_DISTINCT


def _exact(clips: Sequence[Clip], hashes: dict[int, str]) -> list[Duplicate]:
    """Pairs of equal samples: every clip with the first one of each split, so that a thousand copies are no million."""
    alike: dict[str, list[int]] = defaultdict(list)
    for row, audio_sha256 in hashes.items():
        alike[audio_sha256].append(row)
    pairs = set()
    for rows in alike.values():
        firsts = {clips[row].split: row for row in reversed(rows)}.values()
        pairs |= {(min(row, first), max(row, first)) for row in rows for first in firsts if row != first}
    return [
        _pair("file" if clips[one].sha256 == clips[other].sha256 else "audio", clips[one], clips[other])
        for one, other in sorted(pairs)
    ]


def _near(clips: Sequence[Clip], prints: Sequence[Any], readable: Sequence[int]) -> list[Duplicate]:
    """Pairs that sound alike and are not equal, each once."""
    fingerprints = [prints[row].fingerprint for row in readable]
    found = [
        (readable[begin + match.clip], readable[place], match)
        for begin, index in index_in_parts(fingerprints)
        for place in range(begin + 1, len(readable))
        for match in index.matches(fingerprints[place])
        if begin + match.clip < place
    ]
    return [
        _pair("near", clips[one], clips[other], match.error_rate, match.offset_s)
        for one, other, match in sorted(found, key=lambda pair: pair[:2])
        if prints[one].audio_sha256 != prints[other].audio_sha256
    ]


def _pair(kind: str, one: Clip, other: Clip, error_rate: float = 0.0, offset_s: float = 0.0) -> Duplicate:
    """Of a pair across splits, `one` is the clip to leave out: of train rather than dev, of dev rather than test."""
    if SPLITS.index(one.split) > SPLITS.index(other.split):
        one, other, offset_s = other, one, -offset_s
    return Duplicate(kind, one, other, error_rate, offset_s)
