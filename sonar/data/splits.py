"""Deterministic stratified group splits: clips of one recording never stand on two sides."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from sonar.data.dealing import Deal
from sonar.data.manifest import SPLITS, Clip

DEFAULT_FRACTIONS: Mapping[str, float] = {"train": 0.6, "dev": 0.2, "test": 0.2}


class Held(NamedTuple):
    """What a split holds of a label."""

    groups: int
    clips: int


class LabelSplits(NamedTuple):
    """One label of a corpus over the splits.

    Attributes:
        corpus: name of the corpus.
        label: the class; empty for the clips that have none.
        train: held for training.
        dev: held for choosing.
        test: held for the final score.
        reason: why a split lacks the label; empty where none does.
    """

    corpus: str
    label: str
    train: Held
    dev: Held
    test: Held
    reason: str


def complete_splits(
    clips: Sequence[Clip], *, fractions: Mapping[str, float] = DEFAULT_FRACTIONS, seed: int = 0
) -> list[Clip]:
    """Give every clip without a split one, whole groups at a time, whatever the order of the clips.

    Given splits stay. A clip without one whose group has one goes there. The rest is dealt, each corpus by itself,
    over the splits that no given clip of the corpus holds, and train:

    - nothing given: over all, by `fractions`;
    - a given test: over train and dev, in the proportion of their fractions; likewise a given dev, or both: to train;
    - a given train: dev and test take up to their fraction of all clips of a label, given ones counted; train the rest;
    - given train and test: dev takes up to its fraction, train the rest; likewise train and dev;
    - all three given: to train. What is given for evaluation never grows: scores on it stay comparable.

    Every label is dealt by itself, those of the fewest groups first, so that rare ones find room. Its groups stand in
    the order of a seeded hash, and the line of their clips is cut by the fractions: a group lies where its middle
    does. Groups too large for the smallest part go first, the largest first, to where most is lacking. At last a
    label with a group for every split that lacks one there gets it, if no label of that group then stands in fewer
    splits: always, where groups hold one label.

    What moves when clips of other groups are added and nothing was given: none of a label that shares no group with
    theirs; where groups hold one label and none more than the smallest fraction of its clips, at each of the cuts
    at most as many clips as were added, and one group.

    Args:
        clips: of one or several corpora; split is "" where none is given.
        fractions: share of the clips per split; a split that is not named gets none.
        seed: of the hash.

    Returns:
        The clips in their order, each with a split.

    Raises:
        ValueError: fractions that are no shares of a whole, or a group with two given splits.
    """
    _check_fractions(fractions)
    given = [clip for clip in clips if clip.split]
    check_group_splits(given)
    placed = {clip.group: clip.split for clip in given}
    corpora: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        corpora[clip.corpus].append(clip)
    for name in sorted(corpora):
        held = {clip.split for clip in corpora[name] if clip.split}
        open_to = {split: share for split, share in fractions.items() if split == "train" or split not in held}
        Deal(corpora[name], open_to or {"train": 1.0}, placed, seed).deal()
    return [clip._replace(split=placed[clip.group]) for clip in clips]


def check_group_splits(clips: Sequence[Clip]) -> None:
    """Refuse splits that tear a group apart.

    Raises:
        ValueError: names the group and its splits.
    """
    for group, found in sorted(torn_groups(clips).items()):
        raise ValueError(
            f"group {group!r} stands in splits {', '.join(found)}: its clips are of one recording and "
            "must be in one split. Correct the split column, or leave it out to have splits made"
        )


def torn_groups(clips: Sequence[Clip]) -> dict[str, list[str]]:
    """The groups that stand in several splits, and these."""
    splits: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        splits[clip.group].add(clip.split)
    return {group: sorted(found) for group, found in splits.items() if len(found) > 1}


def split_report(clips: Sequence[Clip], *, given: Collection[str] | None = None) -> list[LabelSplits]:
    """Groups and clips of every label in every split, and the reason where one is missing.

    Args:
        clips: with splits.
        given: ids of the clips whose split was given and not made; None: of all.

    Returns:
        In order of corpus and label; clips without a label last.
    """
    strata: dict[tuple[str, str], list[Clip]] = defaultdict(list)
    for clip in clips:
        for label in clip.labels or ("",):
            strata[clip.corpus, label].append(clip)
    in_order = sorted(strata, key=lambda stratum: (stratum[0], stratum[1] == "", stratum[1]))
    return [_label_splits(corpus, label, strata[corpus, label], given) for corpus, label in in_order]


def check_labelled_splits(clips: Sequence[Clip]) -> None:
    """Refuse a labelled corpus in which a class has no clip in some split.

    Raises:
        ValueError: names the corpus, the class, the split, and why.
    """
    for row in split_report(clips):
        if row.label and row.reason:
            raise ValueError(
                f"corpus {row.corpus}: {row.reason}. "
                "Add recordings, leave the class out, or leave out a split column that separates it so"
            )


def _label_splits(corpus: str, label: str, clips: Sequence[Clip], given: Collection[str] | None) -> LabelSplits:
    held = {
        split: Held(len({clip.group for clip in clips if clip.split == split}), sum(c.split == split for c in clips))
        for split in SPLITS
    }
    missing = [split for split in SPLITS if not held[split].clips]
    reason = _reason(label, clips, missing, given) if missing else ""
    return LabelSplits(corpus, label, **held, reason=reason)


def _reason(label: str, clips: Sequence[Clip], missing: Sequence[str], given: Collection[str] | None) -> str:
    groups = {clip.group for clip in clips}
    given_groups = groups if given is None else {clip.group for clip in clips if clip.clip_id in given}
    count = f"{len(groups)} recording group{'s' if len(groups) > 1 else ''}"
    if len(groups) < len(SPLITS):
        why = f"it has {count}; {len(SPLITS)} splits need {len(SPLITS)}"
    elif given_groups:
        why = f"it has {count}, and the given splits place {len(given_groups)} of them elsewhere"
    else:
        why = f"it has {count}, and each that could move there holds a class that would lose a split"
    holder = f"class {label!r} has" if label else "clips without a class have"
    return f"{holder} no clip in split {', '.join(missing)}: {why}"


def _check_fractions(fractions: Mapping[str, float]) -> None:
    unknown = [split for split in fractions if split not in SPLITS]
    if unknown or not all(share > 0 for share in fractions.values()) or not math.isclose(sum(fractions.values()), 1):
        shown = ",".join(f"{split}={share:g}" for split, share in fractions.items())
        raise ValueError(
            f"fractions {shown}: give splits of {', '.join(SPLITS)} shares above 0 that add up to 1, "
            "as train=0.6,dev=0.2,test=0.2"
        )
