"""What a probe is given, and why it may be refused.

Shapes: N clips, K layers, L patches, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sonar.evaluate.scores import is_multi_label

_CHECKED_CLIPS = 256  # whose patches are in memory at a time


class Patches(NamedTuple):
    """Patches of N clips in a table that may lie on disk; only the clips that are read are in memory.

    Attributes:
        table: (T, L, D) float16; what lies after a clip's own patches has no meaning.
        num_patches: (T,) int of the clip's own.
        rows: (N,) int64 of the table.
    """

    table: np.ndarray
    num_patches: np.ndarray
    rows: np.ndarray

    def take(self, rows: np.ndarray) -> Patches:
        """Some of the clips."""
        return self._replace(rows=self.rows[rows])

    def parts(self, num_clips: int) -> Iterator[Patches]:
        """All clips in order, some at a time."""
        for begin in range(0, len(self.rows), num_clips):
            yield self._replace(rows=self.rows[begin : begin + num_clips])

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Values (N, L, D) as the table holds them, and padding (N, L) bool, True where padded."""
        padding = np.arange(self.table.shape[1]) >= self.num_patches[self.rows][:, None]
        return self.table[self.rows], padding


class ProbeData(NamedTuple):
    """One split of a task.

    Attributes:
        embeddings: (N, D) float, or (N, K, D) of K layers, the last one last; `Patches` for the attentive probe.
        targets: (N, C) bool, see `class_table`; a task is multi-class where every clip of it has one class.
        classes: C names, the same ones for every split.
        groups: (N,) str, recording groups.
        clip_ids: (N,) str.
    """

    embeddings: np.ndarray | Patches
    targets: np.ndarray
    classes: tuple[str, ...]
    groups: np.ndarray
    clip_ids: np.ndarray

    def take(self, rows: np.ndarray) -> ProbeData:
        """Some of the clips."""
        embeddings = self.embeddings.take(rows) if isinstance(self.embeddings, Patches) else self.embeddings[rows]
        return ProbeData(embeddings, self.targets[rows], self.classes, self.groups[rows], self.clip_ids[rows])


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


def class_weights(targets: np.ndarray) -> np.ndarray:
    """(C,) weights of a clip of each class of a multi-class task, with which all classes in (N, C) bool count alike."""
    counts = targets.sum(axis=0)
    return len(targets) / (np.count_nonzero(counts) * counts.clip(min=1))


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
        if not _is_finite(data.embeddings):
            raise ValueError(f"embeddings of the {name} split hold NaN or inf; the encoder has diverged")
    if dev is None and len(np.unique(train.groups)) < 2:
        raise ValueError("the training split is a single recording; give it clips of two recordings or more")
    check_classes({name: data.targets for name, data in splits.items()}, train.classes)


def _is_finite(embeddings: np.ndarray | Patches) -> bool:
    if isinstance(embeddings, Patches):
        return all(np.isfinite(part.read()[0]).all() for part in embeddings.parts(_CHECKED_CLIPS))
    return bool(np.isfinite(embeddings).all())


def check_classes(targets: dict[str, np.ndarray], classes: tuple[str, ...]) -> None:
    """Refuse tables of targets, by the name of their split (training, scored, dev), that no score can be stated for.

    Raises:
        ValueError: a class that a split lacks, a single class, or a multi-label task whose scored clips have one label.
    """
    there = np.asarray([table.any(axis=0) for table in targets.values()])
    lacking = np.asarray(classes)[~there.all(axis=0)]
    if len(lacking):
        others = " and the ".join(name for name in targets if name != "training")
        raise ValueError(
            f"classes {', '.join(lacking)} are not in both the training and the {others} split; "
            "give each class a recording group in every split, or leave the class out"
        )
    several = [name for name, table in targets.items() if is_multi_label(table)]
    if several and "scored" not in several:
        raise ValueError(
            f"clips of the {' and '.join(several)} split have no class or several, but every scored clip has one, so "
            "the task looks multi-class there; score more clips, or give every clip one class"
        )
    if not several and len(classes) < 2:
        raise ValueError(f"every clip is {', '.join(classes)}; a probe needs two classes or more")
