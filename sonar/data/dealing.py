"""Dealing the recording groups of one corpus over splits, label by label."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from sonar.data.manifest import Clip


class Deal:
    """The groups of a corpus without a split, to be dealt by the rule of `splits.complete_splits`."""

    def __init__(self, clips: Sequence[Clip], open_to: Mapping[str, float], placed: dict[str, str], seed: int) -> None:
        """Prepare to deal.

        Args:
            clips: all of the corpus.
            open_to: the splits that receive, and the share of all clips of a label that each should come to hold.
            placed: the split of every group that has one; `deal` adds the others.
            seed: of the order of the groups.
        """
        self._open_to, self._placed = open_to, placed
        self._sizes: dict[str, Counter[str]] = defaultdict(Counter)  # label -> group -> number of clips
        self._labels: dict[str, set[str]] = defaultdict(set)  # of a group
        for clip in clips:
            for label in clip.labels or ("",):
                self._sizes[label][clip.group] += 1
                self._labels[clip.group].add(label)
        self._movable = {group for group in self._labels if group not in placed}
        self._order = {group: hashlib.sha256(f"{seed}/{group}".encode()).hexdigest() for group in self._labels}

    def deal(self) -> None:
        """Place every group."""
        rarest_first = sorted(self._sizes, key=lambda label: (len(self._sizes[label]), label))
        for label in rarest_first:
            self._place_large(label)
            self._place_along_a_line(label)
        for label in rarest_first:
            self._fill_missing(label)

    def _place_large(self, label: str) -> None:
        """Put the groups of a label that are larger than the smallest part that is still empty."""
        sizes, filled = self._sizes[label], self._filled(label)
        parts = self._parts(label)
        smallest = min((part for split, part in parts.items() if not filled[split]), default=math.inf)
        large = [group for group in self._waiting(label) if sizes[group] > smallest]
        for group in sorted(large, key=lambda group: (-sizes[group], self._order[group])):
            lacks = self._lacks(label)
            empty = [split for split in self._open_to if not filled[split]]
            split = max(empty or self._open_to, key=lacks.__getitem__)
            self._placed[group] = split
            filled[split] += sizes[group]

    def _place_along_a_line(self, label: str) -> None:
        """Cut the line of the waiting groups' clips into the parts; a group lies where its middle does."""
        cuts, end = [], 0.0
        for split, part in self._parts(label).items():
            end += part
            cuts.append((end, split))
        begin = 0
        for group in self._waiting(label):
            size = self._sizes[label][group]
            # The last part ends where the line does: what rounding leaves beyond it belongs to it.
            beyond = (split for end, split in cuts if begin + size / 2 < end - 1e-9)
            self._placed[group] = next(beyond, cuts[-1][1])
            begin += size

    def _fill_missing(self, label: str) -> None:
        """Move a group of the label, the smallest, to each open split that has none of it, if one can move."""
        sizes = self._sizes[label]
        for split in self._open_to:
            if self._filled(label)[split] or len(sizes) < len(self._open_to):
                continue
            costs = {group: self._cost(group, split) for group in sizes if group in self._movable}
            spare = [group for group, cost in costs.items() if cost is not None]
            if spare:
                best = min(spare, key=lambda group: (costs[group], sizes[group], self._order[group]))
                self._placed[best] = split

    def _cost(self, group: str, split: str) -> int | None:
        """How many labels of the group would exchange splits by its move; None if one would stand in fewer."""
        now, exchanged = self._placed[group], 0
        for label in self._labels[group]:
            elsewhere = {self._placed[other] for other in self._sizes[label] if other != group}
            if now not in elsewhere:
                if split in elsewhere:
                    return None
                exchanged += 1
        return exchanged

    def _waiting(self, label: str) -> list[str]:
        waiting = (group for group in self._sizes[label] if group not in self._placed)
        return sorted(waiting, key=self._order.__getitem__)

    def _filled(self, label: str) -> Counter[str]:
        filled: Counter[str] = Counter()
        for group, size in self._sizes[label].items():
            if group in self._placed:
                filled[self._placed[group]] += size
        return filled

    def _lacks(self, label: str) -> dict[str, float]:
        """Clips that each open split lacks of its share of the label."""
        total, filled = sum(self._sizes[label].values()), self._filled(label)
        return {split: max(0.0, share * total - filled[split]) for split, share in self._open_to.items()}

    def _parts(self, label: str) -> dict[str, float]:
        """The waiting clips in proportion to what the open splits lack; to their shares where none lacks any."""
        lacks = self._lacks(label)
        if not any(lacks.values()):
            lacks = dict(self._open_to)
        waiting = sum(self._sizes[label][group] for group in self._waiting(label))
        return {split: lack / sum(lacks.values()) * waiting for split, lack in lacks.items()}
