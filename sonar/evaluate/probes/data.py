"""What a probe is given, and why it may be refused.

Shapes: N clips, K layers, L patches, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sonar.evaluate.scores import is_multi_label


class ProbeData(NamedTuple):
    """One split of a task.

    Attributes:
        embeddings: (N, D) float; (N, K, D) of K layers, the last one last; of the attentive probe (N, L, D) patches,
            padded ones after the real ones.
        targets: (N, C) bool, see `class_table`; a task is multi-class where every clip of it has one class.
        classes: C names, the same ones for every split.
        groups: (N,) str, recording groups.
        clip_ids: (N,) str.
        num_patches: (N,) int of each clip that are no padding, where `embeddings` are patches.
    """

    embeddings: np.ndarray
    targets: np.ndarray
    classes: tuple[str, ...]
    groups: np.ndarray
    clip_ids: np.ndarray
    num_patches: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> ProbeData:
        """Some of the clips."""
        patches = None if self.num_patches is None else self.num_patches[rows]
        columns = (self.embeddings[rows], self.targets[rows])
        return ProbeData(*columns, self.classes, self.groups[rows], self.clip_ids[rows], patches)


def class_table(labels: Sequence[Sequence[str]], classes: Sequence[str]) -> np.ndarray:
    """(N, C) bool: which of the classes each clip has.

    Raises:
        ValueError: a label is none of the classes.
    """
    column = {name: number for number, name in enumerate(classes)}
    table = np.zeros((len(labels), len(classes)), dtype=np.bool_)
    for row, names in enumerate(labels):
        for name in names:
            if name not in column:
                raise ValueError(f"label {name!r} is none of the classes {', '.join(classes)}")
            table[row, column[name]] = True
    return table


def check_splits(train: ProbeData, scored: ProbeData, dev: ProbeData | None) -> None:
    """Refuse what no score can be stated for.

    Raises:
        ValueError: embeddings that are not finite, a class that a split lacks, one class, other classes in one split
            than in another, a training split of one recording, or a multi-label task that cannot be told from one.
    """
    splits = {"training": train, "scored": scored} | ({} if dev is None else {"dev": dev})
    for name, data in splits.items():
        if data.classes != train.classes:
            raise ValueError(f"classes of the {name} split are {list(data.classes)}, not {list(train.classes)}")
        if not np.isfinite(data.embeddings).all():
            raise ValueError(f"embeddings of the {name} split hold NaN or inf; the encoder has diverged")
    if dev is None and len(np.unique(train.groups)) < 2:
        raise ValueError("the training split is a single recording; give it clips of two recordings or more")
    _check_classes(splits)


def _check_classes(splits: dict[str, ProbeData]) -> None:
    classes = np.asarray(splits["training"].classes)
    lacking = ~np.all([data.targets.any(axis=0) for data in splits.values()], axis=0)
    if lacking.any():
        raise ValueError(
            f"classes {', '.join(classes[lacking])} are not in both the training and the {_others(splits)} split; "
            "give each class a recording group in every split, or leave the class out"
        )
    several = {name for name, data in splits.items() if is_multi_label(data.targets)}
    if several and "scored" not in several:
        raise ValueError(
            f"clips of the {' and '.join(sorted(several))} split have no class or several, but every scored clip has "
            "one, so the task looks multi-class there; score more clips, or give every clip one class"
        )
    if not several and len(classes) < 2:
        raise ValueError(f"every clip is {', '.join(classes)}; a probe needs two classes or more")


def _others(splits: dict[str, ProbeData]) -> str:
    return " and the ".join(name for name in splits if name != "training")
