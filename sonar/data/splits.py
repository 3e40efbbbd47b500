"""Deterministic stratified group splits: clips of one recording never stand on two sides."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from sonar.data.manifest import SPLITS, Clip

DEFAULT_FRACTIONS: Mapping[str, float] = {"train": 0.6, "dev": 0.2, "test": 0.2}

_Groups = dict[str, Counter[str]]  # label -> group -> number of clips


def assign_splits(
    clips: Sequence[Clip], *, fractions: Mapping[str, float] = DEFAULT_FRACTIONS, seed: int = 0
) -> list[Clip]:
    """Give every clip a split, whole groups at a time, each label by itself, whatever the order of the clips.

    The groups of a label, large ones first and equal ones by a seeded hash, go where the label is furthest below its
    share of clips, and first of all to splits where it has none: a label with a group of its own for every split is
    in all of them. Rare labels are placed first; where groups hold several labels, groups are moved afterwards
    as long as a label gains a split and none loses one.

    Args:
        clips: the corpus.
        fractions: share of the clips per split.
        seed: of the hash.

    Returns:
        The clips in their order, with `split` replaced.
    """
    groups: _Groups = defaultdict(Counter)
    for clip in clips:
        for label in clip.labels or ("",):
            groups[label][clip.group] += 1
    placed: dict[str, str] = {}
    rarest_first = sorted(groups, key=lambda label: (len(groups[label]), label))
    for label in rarest_first:
        ordered = sorted(groups[label], key=lambda group: (-groups[label][group], _hash(f"{seed}/{group}")))
        _place(ordered, groups[label], fractions, placed)
    for label in rarest_first:
        _fill_missing(label, groups, fractions, placed)
    return [clip._replace(split=placed[clip.group]) for clip in clips]


def complete_splits(
    clips: Sequence[Clip], *, fractions: Mapping[str, float] = DEFAULT_FRACTIONS, seed: int = 0
) -> list[Clip]:
    """Deal the clips without a split over the splits that no clip has by itself; the others keep theirs.

    Returns:
        The clips in their order.
    """
    given = {clip.split for clip in clips}
    left = {split: share for split, share in fractions.items() if split not in given}
    total = sum(left.values())
    left = {split: share / total for split, share in left.items()} or {"train": 1.0}
    dealt = iter(assign_splits([clip for clip in clips if not clip.split], fractions=left, seed=seed))
    return [clip if clip.split else next(dealt) for clip in clips]


def check_group_splits(clips: Sequence[Clip]) -> None:
    """Refuse splits that tear a group apart.

    Raises:
        ValueError: names the group and its splits.
    """
    splits: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        splits[clip.group].add(clip.split)
    for group, found in sorted(splits.items()):
        if len(found) > 1:
            raise ValueError(
                f"group {group!r} stands in splits {', '.join(sorted(found))}: its clips are of one recording and "
                "must be in one split. Correct the split column, or leave it out to have splits made"
            )


def check_labelled_splits(clips: Sequence[Clip]) -> None:
    """Refuse a labelled corpus in which a class has no clip in some split.

    Raises:
        ValueError: names the corpus, the class, the split, and why.
    """
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    groups: dict[tuple[str, str], set[str]] = defaultdict(set)
    for clip in clips:
        for label in clip.labels:
            found[clip.corpus, label].add(clip.split)
            groups[clip.corpus, label].add(clip.group)
    for (corpus, label), splits in sorted(found.items()):
        if missing := [split for split in SPLITS if split not in splits]:
            raise ValueError(
                f"corpus {corpus}: class {label!r} has no clip in split {', '.join(missing)}; it has "
                f"{len(groups[corpus, label])} recording groups, and each split needs one. "
                "Add recordings, leave the class out, or leave out a split column that separates it so"
            )


def _place(
    ordered: Sequence[str], sizes: Mapping[str, int], fractions: Mapping[str, float], placed: dict[str, str]
) -> None:
    """Put the groups of one label that have no split yet where the label is furthest below its share."""
    total = sum(sizes.values())
    filled = dict.fromkeys(fractions, 0)
    for group in ordered:
        if group in placed:
            filled[placed[group]] += sizes[group]
    for group in ordered:
        if group not in placed:
            lacks = {split: share * total - filled[split] for split, share in fractions.items()}
            empty = [split for split in fractions if filled[split] == 0]
            placed[group] = max(empty or fractions, key=lacks.__getitem__)
            filled[placed[group]] += sizes[group]


def _fill_missing(label: str, groups: _Groups, fractions: Mapping[str, float], placed: dict[str, str]) -> None:
    """Move a group of the label to each split where it has none, if no label of that group loses a split by it."""
    for split in fractions:
        if any(placed[group] == split for group in groups[label]):
            continue
        spare = (group for group in sorted(groups[label], key=_hash) if _can_move(group, groups, placed))
        if (group := next(spare, None)) is not None:
            placed[group] = split


def _can_move(group: str, groups: _Groups, placed: Mapping[str, str]) -> bool:
    return all(
        any(other != group and placed[other] == placed[group] for other in of_label)
        for of_label in groups.values()
        if group in of_label
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
