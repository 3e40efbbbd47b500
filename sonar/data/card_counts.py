"""What a manifest says before any audio is read: counts, hours, balance, lengths, formats, torn groups (pure)."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from sonar.data.manifest import SPLITS, Clip

MIN_GROUPS = 3  # of a class: one for each split
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
LENGTH_EDGES_S = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)  # the same for all cards: comparable

_Key = TypeVar("_Key")


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How much there is: clips, hours, and groups (recordings, speakers or days)."""

    clips: int
    hours: float
    groups: int


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """One class of one corpus, all of it and by split; `label` is empty for clips without one."""

    corpus: str
    label: str
    all: Tally
    splits: dict[str, Tally]


@dataclass(frozen=True, kw_only=True)
class CorpusCount:
    """One corpus, all of it and by split, and how even its classes are.

    Attributes:
        effective_classes: exp of the entropy (nats) of the clips over the classes: n classes of one size count n.
        largest_to_smallest: clips of the largest class over those of the smallest.
        few_clips: classes with fewer clips than asked for.
        few_groups: classes with fewer than three groups, one for each split.
    """

    corpus: str
    domain: str
    all: Tally
    splits: dict[str, Tally]
    classes: int
    effective_classes: float | None
    largest_to_smallest: float | None
    few_clips: tuple[str, ...]
    few_groups: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Durations of the clips: quantiles by their probability, and clips from each edge to the next one."""

    quantiles_s: dict[str, float]
    edges_s: tuple[float, ...]
    clips: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class FileFormat:
    """Clips of one sample rate and number of channels."""

    sample_rate: int
    channels: int
    clips: int
    hours: float


@dataclass(frozen=True, kw_only=True)
class TornGroup:
    """A group with clips in several splits."""

    group: str
    splits: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """All that is known without reading audio."""

    all: Tally
    files: int
    corpora: tuple[CorpusCount, ...]
    classes: tuple[ClassCount, ...]
    lengths: Lengths
    formats: tuple[FileFormat, ...]
    torn_groups: tuple[TornGroup, ...]


def count_clips(clips: Sequence[Clip], *, min_clips: int) -> Counts:
    """Counts of a manifest that holds at least one clip.

    Args:
        clips: its rows; a clip with several labels counts in each of their classes.
        min_clips: a class with fewer is told in `few_clips`.
    """
    corpora = _grouped(clips, lambda clip: [clip.corpus])
    return Counts(
        all=tally(clips),
        files=len({clip.path for clip in clips}),
        corpora=tuple(_corpus(members, min_clips) for _, members in sorted(corpora.items())),
        classes=tuple(
            ClassCount(corpus=corpus, label=label, all=tally(members), splits=_by_split(members))
            for (corpus, label), members in sorted(by_class(clips).items())
        ),
        lengths=_lengths(clips),
        formats=_formats(clips),
        torn_groups=_torn_groups(clips),
    )


def by_class(clips: Iterable[Clip]) -> dict[tuple[str, str], list[Clip]]:
    """Clips of each (corpus, label); those without a label under the empty one."""
    return _grouped(clips, lambda clip: [(clip.corpus, label) for label in clip.labels or ("",)])


def tally(clips: Sequence[Clip]) -> Tally:
    """How much the clips are."""
    seconds = math.fsum(clip.duration_s for clip in clips)
    return Tally(clips=len(clips), hours=seconds / 3600, groups=len({clip.group for clip in clips}))


def effective_number(sizes: Sequence[int]) -> float:
    """The exp of the entropy of the sizes (nats): n for n equal ones, near 1 where one holds nearly all."""
    shares = np.asarray(sizes, dtype=float) / sum(sizes)
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _grouped(clips: Iterable[Clip], keys: Callable[[Clip], Iterable[_Key]]) -> dict[_Key, list[Clip]]:
    members = defaultdict(list)
    for clip in clips:
        for key in keys(clip):
            members[key].append(clip)
    return members


def _corpus(clips: Sequence[Clip], min_clips: int) -> CorpusCount:
    classes = {label: tally(members) for (_, label), members in sorted(by_class(clips).items()) if label}
    sizes = [one.clips for one in classes.values()]
    return CorpusCount(
        corpus=clips[0].corpus,
        domain=clips[0].domain,
        all=tally(clips),
        splits=_by_split(clips),
        classes=len(classes),
        effective_classes=effective_number(sizes) if sizes else None,
        largest_to_smallest=max(sizes) / min(sizes) if sizes else None,
        few_clips=tuple(label for label, one in classes.items() if one.clips < min_clips),
        few_groups=tuple(label for label, one in classes.items() if one.groups < MIN_GROUPS),
    )


def _by_split(clips: Sequence[Clip]) -> dict[str, Tally]:
    return {split: tally([clip for clip in clips if clip.split == split]) for split in SPLITS}


def _lengths(clips: Sequence[Clip]) -> Lengths:
    seconds = np.asarray([clip.duration_s for clip in clips])
    clips_from, _ = np.histogram(seconds, [*LENGTH_EDGES_S, math.inf])
    return Lengths(
        quantiles_s=dict(zip(map(str, QUANTILES), np.quantile(seconds, QUANTILES).tolist(), strict=True)),
        edges_s=LENGTH_EDGES_S,
        clips=tuple(clips_from.tolist()),
    )


def _formats(clips: Sequence[Clip]) -> tuple[FileFormat, ...]:
    members = _grouped(clips, lambda clip: [(clip.sample_rate, clip.channels)])
    found = [
        FileFormat(sample_rate=rate, channels=channels, clips=len(same), hours=tally(same).hours)
        for (rate, channels), same in members.items()
    ]
    return tuple(sorted(found, key=lambda one: (-one.clips, one.sample_rate, one.channels)))


def _torn_groups(clips: Sequence[Clip]) -> tuple[TornGroup, ...]:
    splits: dict[str, Counter[str]] = defaultdict(Counter)
    for clip in clips:
        splits[clip.group][clip.split] += 1
    return tuple(
        TornGroup(group=group, splits=dict(sorted(found.items())))
        for group, found in sorted(splits.items())
        if len(found) > 1
    )
