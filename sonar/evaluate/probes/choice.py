"""How good a candidate is on clips that it was not fitted on, and where the thresholds of a multi-label task lie.

Shapes: M held-out clips, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import average_precision_score, f1_score


class Held(NamedTuple):
    """What a fit said of clips that it had not seen.

    Attributes:
        truth: (M, C) bool.
        scores: (M, C) float.
        known: (C,) bool, classes that the fit had a clip of.
    """

    truth: np.ndarray
    scores: np.ndarray
    known: np.ndarray


def quality(held: Held, multi_label: bool) -> float:
    """Macro-F1 over the classes that are there or said; multi-label: mean AP over those that are there and known.

    Raises:
        ValueError: of a multi-label task no such class is there.
    """
    if not multi_label:
        return float(f1_score(held.truth.argmax(axis=1), held.scores.argmax(axis=1), average="macro"))
    columns = np.flatnonzero(held.truth.any(axis=0) & held.known)
    if not len(columns):
        raise ValueError("a part of the choice has no class that the other parts have; use fewer folds, or a dev split")
    return float(np.mean([average_precision_score(held.truth[:, c], held.scores[:, c]) for c in columns]))


def best_thresholds(held: Sequence[Held], classes: Sequence[str]) -> np.ndarray:
    """(C,) float64: of each class, the threshold of the best F1 on all clips of parts whose fit knew it.

    Raises:
        ValueError: a class has no such clip.
    """
    thresholds = np.empty(len(classes))
    for column, name in enumerate(classes):
        parts = [part for part in held if part.known[column]]
        truth = np.concatenate([part.truth[:, column] for part in parts]) if parts else np.zeros(0, dtype=np.bool_)
        if not truth.any():
            raise ValueError(
                f"all training clips of class {name} are one recording, so its threshold cannot be chosen; give it a "
                "second recording, or a dev split"
            )
        thresholds[column] = best_threshold(truth, np.concatenate([part.scores[:, column] for part in parts]))
    return thresholds


def best_threshold(truth: np.ndarray, scores: np.ndarray) -> float:
    """The threshold that gives `scores` above it the best F1; the highest of equal ones, between two scores.

    Args:
        truth: (M,) bool, True at least once.
        scores: (M,) float.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order].astype(np.float64)
    hits = np.cumsum(truth[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1])
    f1[:-1][ranked[:-1] == ranked[1:]] = 0.0  # no threshold parts equal scores
    last = int(f1.argmax())
    return (
        float((ranked[last] + ranked[last + 1]) / 2)
        if last + 1 < len(ranked)
        else float(np.nextafter(ranked[last], -np.inf))
    )
