"""Clips that are the same audio: within a corpus, and in the corpora that it is held against."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sonar.data.manifest import Clip


@dataclass(frozen=True, kw_only=True)
class Copy:
    """Two clips that are the same audio.

    Attributes:
        kind: file (the same bytes, and overlapping parts of them), group (the same recording, speaker or day), or
            sound (the same recording by its fingerprint: re-encoded, trimmed or at another level).
        clip_id: of this corpus.
        split: of that clip.
        other: what this corpus is held against, as given; empty where both clips are of this corpus.
        other_clip_id: the other clip.
        other_split: its split.
    """

    kind: str
    clip_id: str
    split: str
    other: str
    other_clip_id: str
    other_split: str


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Pairs of copies: of n clips that are all the same, n - 1 pairs are told."""

    within_splits: tuple[Copy, ...]
    across_splits: tuple[Copy, ...]
    against: tuple[Copy, ...]


def find_copies(clips: Sequence[Clip], against: Mapping[str, Sequence[Clip]]) -> Copies:
    """Copies among `clips`, and between them and each corpus of `against`."""
    own = list(_same_file(clips))
    return Copies(
        within_splits=tuple(pair for pair in own if pair.split == pair.other_split),
        across_splits=tuple(pair for pair in own if pair.split != pair.other_split),
        against=tuple(pair for name, others in against.items() for pair in _shared(clips, others, name)),
    )


def _same_file(clips: Sequence[Clip]) -> Iterator[Copy]:
    of_file = defaultdict(list)
    for clip in clips:
        of_file[clip.sha256].append(clip)
    for members in of_file.values():
        members.sort(key=lambda clip: (clip.start_s, clip.split, clip.clip_id))
        for one, other in pairwise(members):
            if other.start_s < one.start_s + one.duration_s:
                yield _pair("file", one, other, "")


def _shared(clips: Sequence[Clip], others: Sequence[Clip], name: str) -> Iterator[Copy]:
    """One pair for each clip whose file or group is in `others`."""
    by_sha = {clip.sha256: clip for clip in others}
    by_group = {clip.group: clip for clip in others}
    for clip in clips:
        if clip.sha256 in by_sha:
            yield _pair("file", clip, by_sha[clip.sha256], name)
        elif clip.group in by_group:
            yield _pair("group", clip, by_group[clip.group], name)


def _pair(kind: str, one: Clip, other: Clip, name: str) -> Copy:
    return Copy(
        kind=kind,
        clip_id=one.clip_id,
        split=one.split,
        other=name,
        other_clip_id=other.clip_id,
        other_split=other.split,
    )
