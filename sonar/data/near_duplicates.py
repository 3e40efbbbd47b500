"""Which clips are the same recording, re-encoded, trimmed or at another level: spectral fingerprints; numpy only.

Source: Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System", ISMIR 2002: every frame gives a word of 32
bits, the signs of how the energy difference of neighbouring bands changes in time; words that two clips share propose
an alignment, and the bit error rate over it decides. Ours differ [inferred]: wider bands (birds) and shorter frames
(clips of a second); words that share three of their four bytes propose, since few words of a re-encoded short clip
survive whole; and the error rate allowed falls where the overlap is short.

Shapes: T samples, n frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sonar.data.audio import SAMPLE_RATE

FRAME = 4096  # samples, 0.256 s: long against the hop, so that a trim by part of a hop changes few bits
HOP = 160  # samples, 10 ms
BAND_EDGES_HZ = np.geomspace(300.0, 7000.0, 34)  # 33 bands
SILENCE = 1e-4  # frames 40 dB below the loudest of their clip say nothing
FLOOR = 1e-8  # power below which a frame says nothing in any clip: -80 dBFS, rounding to 16 bits is -101 dBFS
MIN_FRAMES = 16  # of an overlap, both clips informative
MIN_DISTINCT = 12  # words in an overlap: fewer are a sound that stands still, which fits everywhere
MIN_SHARE = 0.5  # of the informative frames of the shorter clip that must lie in the overlap
MAX_ERROR_RATE = 0.2  # of bits; Haitsma and Kalker 0.35, but chirps of one shape come down to 0.21
SIGMAS = 6.0  # by which the error rate must lie below the 1/2 of unrelated audio
FRAMES_PER_INDEX = 2**22  # of one part of a large collection: 12 h, 170 MB
MAX_POSTINGS = 256  # frames of the index with the same three bytes: more, and they propose nothing
VERSION = 2  # of what is found: raise it with every change
MIN_VOTES = 2  # words that propose an alignment: one is chance, and its check costs half of all time
MAX_ALIGNMENTS = 64  # compared for one clip, those with the most words in common first
_KEY_MASKS = tuple(np.uint32(0xFFFFFFFF ^ (0xFF << shift)) for shift in (0, 8, 16, 24))
_FRAMES_AT_A_TIME = 64
_POPCOUNT = np.asarray([bin(value).count("1") for value in range(2**16)], dtype=np.uint8)
_WINDOW = np.hanning(FRAME).astype(np.float32)


class Fingerprint(NamedTuple):
    """Of one clip.

    Attributes:
        words: (n,) uint32, one per frame but the first; none for a clip shorter than two frames.
        informative: (n,) bool, False where the clip is silent.
    """

    words: np.ndarray
    informative: np.ndarray


class Match(NamedTuple):
    """A clip of an index that is the same recording.

    Attributes:
        clip: its place in the index.
        error_rate: share of the bits of the overlap that differ.
        offset_s: where in it the other clip begins, seconds.
    """

    clip: int
    error_rate: float
    offset_s: float


def fingerprint(waveform: np.ndarray) -> Fingerprint:
    """The words of a clip, (T,) float32 at 16 kHz; a gain changes none of them."""
    if len(waveform) < FRAME + HOP:
        return Fingerprint(np.empty(0, dtype=np.uint32), np.empty(0, dtype=np.bool_))
    frames = np.lib.stride_tricks.sliding_window_view(waveform, FRAME)[::HOP]  # (n + 1, FRAME)
    parts = range(0, len(frames), _FRAMES_AT_A_TIME)
    energy = np.concatenate([_band_energy(frames[begin : begin + _FRAMES_AT_A_TIME]) for begin in parts])
    change = np.diff(energy[:, :-1] - energy[:, 1:], axis=0) > 0  # (n + 1, 33) -> (n, 32)
    words = np.packbits(change, axis=1).view(">u4")[:, 0].astype(np.uint32)
    power = energy[1:].sum(1)
    return Fingerprint(words, power > max(SILENCE * power.max(), FLOOR))


class FingerprintIndex:
    """Fingerprints to search in: about 40 bytes per frame, 40 KB for a clip of 10 s."""

    def __init__(self, fingerprints: Sequence[Fingerprint]) -> None:
        """Index clips; a `Match` names their place in the sequence."""
        self._fingerprints = list(fingerprints)
        self._begins = np.cumsum([0, *(len(one.words) for one in fingerprints)])
        words = np.concatenate([np.empty(0, dtype=np.uint32), *(one.words for one in fingerprints)])
        informative = np.concatenate([np.empty(0, dtype=np.bool_), *(one.informative for one in fingerprints)])
        frames = np.flatnonzero(informative).astype(np.uint32)
        self._postings = []  # of each mask: masked words in order, and their frames
        for mask in _KEY_MASKS:
            keys = words[frames] & mask
            order = np.argsort(keys, kind="stable")
            self._postings.append((keys[order], frames[order]))

    def matches(self, clip: Fingerprint) -> list[Match]:
        """The clips of the index that are the same recording as `clip`, in order of their place."""
        best: dict[int, Match] = {}
        for place, shift in self._alignments(clip):
            error_rate = overlap_error_rate(self._fingerprints[place], clip, shift)
            if error_rate is not None and (place not in best or error_rate < best[place].error_rate):
                best[place] = Match(place, error_rate, shift * HOP / SAMPLE_RATE)
        return [best[place] for place in sorted(best)]

    def _alignments(self, clip: Fingerprint) -> list[tuple[int, int]]:
        """Clips, and the frame of each where `clip` would begin: those with the most words in common."""
        asked = np.flatnonzero(clip.informative)
        found = []  # place and shift in one number each
        for mask, (keys, frames) in zip(_KEY_MASKS, self._postings, strict=True):
            wanted = clip.words[asked] & mask
            order = np.argsort(wanted)  # neighbours in the index are searched for one after the other
            begin, end = (np.searchsorted(keys, wanted[order], side) for side in ("left", "right"))
            count = np.where(end - begin <= MAX_POSTINGS, end - begin, 0)
            within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            frame = frames[np.repeat(begin, count) + within].astype(np.int64)
            place = np.searchsorted(self._begins, frame, "right") - 1
            shift = frame - self._begins[place] - np.repeat(asked[order], count)
            found.append(place << 32 | shift + 2**31)
        unique, votes = np.unique(np.concatenate(found), return_counts=True)
        most = np.argsort(-votes, kind="stable")[:MAX_ALIGNMENTS]
        most = most[votes[most] >= MIN_VOTES]
        return [(int(pair >> 32), int(pair & 0xFFFFFFFF) - 2**31) for pair in unique[most]]


def index_in_parts(
    fingerprints: Sequence[Fingerprint], frames_per_index: int = FRAMES_PER_INDEX
) -> Iterator[tuple[int, FingerprintIndex]]:
    """Indices of consecutive clips, and the place of the first clip of each.

    One index over all would be large, and words that are frequent in it would propose nothing.
    """
    begin, num_frames = 0, 0
    for place, one in enumerate(fingerprints):
        if num_frames and num_frames + len(one.words) > frames_per_index:
            yield begin, FingerprintIndex(fingerprints[begin:place])
            begin, num_frames = place, 0
        num_frames += len(one.words)
    yield begin, FingerprintIndex(fingerprints[begin:])


def overlap_error_rate(one: Fingerprint, other: Fingerprint, shift: int) -> float | None:
    """Share of differing bits where `other` begins `shift` frames after `one`; None where that shows no duplicate.

    Bits of frames that overlap in time are not independent: an overlap counts as 32 bits for every `FRAME` samples.
    """
    begin, end = max(0, shift), min(len(one.words), len(other.words) + shift)
    if end - begin < MIN_FRAMES:
        return None
    both = one.informative[begin:end] & other.informative[begin - shift : end - shift]
    least = max(MIN_FRAMES, MIN_SHARE * min(one.informative.sum(), other.informative.sum()))
    left, right = one.words[begin:end][both], other.words[begin - shift : end - shift][both]
    if len(left) < least or min(len(np.unique(left)), len(np.unique(right))) < MIN_DISTINCT:
        return None
    differing = left ^ right
    rate = float((_POPCOUNT[differing >> 16] + _POPCOUNT[differing & 0xFFFF]).mean()) / 32
    independent_bits = 32 * (len(left) * HOP + FRAME) / FRAME
    allowed = min(MAX_ERROR_RATE, 0.5 - SIGMAS * 0.5 / np.sqrt(independent_bits))
    return rate if rate <= allowed else None


def _band_energy(frames: np.ndarray) -> np.ndarray:
    """(m, FRAME) -> (m, 33) float32 power in the bands; a sine at full scale has about 1 / 4."""
    power = np.abs(np.fft.rfft(frames * _WINDOW, axis=1)) ** 2
    return (power @ _BANDS) * np.float32(1 / (_WINDOW.sum() ** 2))


def _band_filters() -> np.ndarray:
    """(FRAME // 2 + 1, 33) float32, 1 where a frequency lies in a band."""
    hertz = np.fft.rfftfreq(FRAME, 1 / SAMPLE_RATE)[:, None]
    return ((hertz >= BAND_EDGES_HZ[:-1]) & (hertz < BAND_EDGES_HZ[1:])).astype(np.float32)


_BANDS = _band_filters()
