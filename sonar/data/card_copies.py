"""Clips that are the same audio: within a corpus, and in the corpora that it is held against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from sonar.data.leakage import Duplicate, Run, duplicate_report
from sonar.data.manifest import Clip


@dataclass(frozen=True, kw_only=True)
class Copy:
    """Two clips that should not stand on two sides.

    Attributes:
        kind: file (the same bytes), audio (other bytes, the same samples), near (it sounds the same: re-encoded,
            trimmed or at another level), or group (other audio of the same recording, speaker or day).
        clip_id: of this corpus.
        split: of that clip.
        other: what this corpus is held against, as given; empty where both clips are of this corpus.
        other_clip_id: the other clip.
        other_split: its split.
        error_rate: share of the bits of the fingerprints that differ; 0 where equal, None where only the group is.
    """

    kind: str
    clip_id: str
    split: str
    other: str
    other_clip_id: str
    other_split: str
    error_rate: float | None


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Pairs of copies; of n clips that are exactly alike, each is paired with the first of each split only.

    Attributes:
        searched: clips of this corpus that were compared: all, or the sample that was measured.
        not_comparable: of them, clips too short or too plain to be known by their sound: only exact copies are found.
        within_splits: pairs in one split.
        across_splits: pairs in two splits.
        against: pairs with a clip of another corpus; of a shared group one pair for each clip.
    """

    searched: int
    not_comparable: int
    within_splits: tuple[Copy, ...]
    across_splits: tuple[Copy, ...]
    against: tuple[Copy, ...]


def find_copies(clips: Sequence[Clip], against: Mapping[str, Sequence[Clip]], *, run: Run = map) -> Copies:
    """Copies among `clips`, and between them and each corpus of `against`.

    Args:
        clips: of this corpus.
        against: clips of others, by name.
        run: maps a function over clips, in order, as `duplicate_report` has it.
    """
    # Clips are known by their place in memory, since equal rows may stand in both corpora: hence the copies of tuples.
    others = {name: [clip._replace() for clip in of_other] for name, of_other in against.items()}
    owner = {id(clip): name for name, of_other in others.items() for clip in of_other}
    report = duplicate_report([*clips, *chain.from_iterable(others.values())], run=run)
    own = [pair for pair in report.duplicates if id(pair.one) not in owner and id(pair.other) not in owner]
    heard = _heard(report.duplicates, owner)
    for name in against:
        _extend(heard, name, own)
    return Copies(
        searched=len(clips),
        not_comparable=sum(id(clip) not in owner for clip in (*report.too_short, *report.featureless)),
        within_splits=tuple(_copy(pair.one, _Twin.of(pair, pair.other)) for pair in own if not pair.across_splits),
        across_splits=tuple(_copy(pair.one, _Twin.of(pair, pair.other)) for pair in own if pair.across_splits),
        against=tuple(copy for name in against for copy in _shared(clips, name, others[name], heard)),
    )


class _Twin(NamedTuple):
    """What a clip is a copy of, and how."""

    kind: str
    clip: Clip
    error_rate: float | None

    @classmethod
    def of(cls, pair: Duplicate, clip: Clip) -> _Twin:
        return cls(pair.kind, clip, pair.error_rate)


_Heard = dict[tuple[str, int], _Twin]  # of another corpus and a clip of this one


def _heard(pairs: Sequence[Duplicate], owner: Mapping[int, str]) -> _Heard:
    """Of pairs between this corpus and another the first one of each clip; exact ones come first."""
    heard: _Heard = {}
    for pair in pairs:
        for clip, other in ((pair.one, pair.other), (pair.other, pair.one)):
            if id(clip) not in owner and id(other) in owner:
                heard.setdefault((owner[id(other)], id(clip)), _Twin.of(pair, other))
    return heard


def _extend(heard: _Heard, name: str, own: Sequence[Duplicate]) -> None:
    """What is exactly alike is in the other corpus too, though only one of it may have been paired with that."""
    for pair in own:
        one, other = (name, id(pair.one)), (name, id(pair.other))
        if pair.kind != "near" and (one in heard) != (other in heard):
            heard[other if one in heard else one] = heard[one if one in heard else other]


def _shared(clips: Sequence[Clip], name: str, others: Sequence[Clip], heard: _Heard) -> Iterator[Copy]:
    """Clips that another corpus has too: the same audio, else of the same group."""
    by_group = {clip.group: clip for clip in others}
    for clip in clips:
        if (name, id(clip)) in heard:
            yield _copy(clip, heard[name, id(clip)], name)
        elif clip.group in by_group:
            yield _copy(clip, _Twin("group", by_group[clip.group], None), name)


def _copy(clip: Clip, twin: _Twin, name: str = "") -> Copy:
    return Copy(
        kind=twin.kind,
        clip_id=clip.clip_id,
        split=clip.split,
        other=name,
        other_clip_id=twin.clip.clip_id,
        other_split=twin.clip.split,
        error_rate=twin.error_rate,
    )
