"""Linear probe on frozen embeddings: the score of an encoder on one labelled task.

Shapes: N clips, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """The frozen linear probe.

    Attributes:
        clip_seconds: clips are cropped to this length in seconds before they are embedded.
        penalties: candidate ridge penalties, chosen by cross-validation over training groups.
        num_folds: folds of that choice.
    """

    clip_seconds: float = 10.0
    penalties: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0)
    num_folds: int = 3


class ProbeData(NamedTuple):
    """One split of a task: embeddings (N, D), labels (N,) and recording groups (N,)."""

    embeddings: np.ndarray
    labels: np.ndarray
    groups: np.ndarray


def linear_probe(train: ProbeData, scored: ProbeData, config: ProbeConfig) -> tuple[tuple[str, ...], np.ndarray]:
    """Ridge classifier on standardised embeddings, in closed form; the penalty is chosen within the training groups.

    Args:
        train: what the probe is fitted on; the scored split takes no part in any choice.
        scored: what it is scored on.
        config: candidates of the penalty.

    Returns:
        The C classes in order, and (N, C) scores of the scored clips.

    Raises:
        ValueError: a class of one split is missing in the other, the training split is one recording, or an embedding
            is not finite.
    """
    _check(train, scored)
    folds = GroupKFold(min(config.num_folds, len(np.unique(train.groups))))
    best = max(
        config.penalties,
        key=lambda penalty: cross_val_score(
            _classifier(penalty), train.embeddings, train.labels, groups=train.groups, cv=folds, scoring="f1_macro"
        ).mean(),
    )
    fitted = _classifier(best).fit(train.embeddings, train.labels)
    scores = fitted.decision_function(scored.embeddings)
    if scores.ndim == 1:  # of two classes scikit-learn gives the second one's column
        scores = np.stack([-scores, scores], axis=1)
    return tuple(map(str, fitted.classes_)), scores.astype(np.float32)


def _classifier(penalty: float) -> Pipeline:
    return make_pipeline(StandardScaler(), RidgeClassifier(alpha=penalty, class_weight="balanced"))


def _check(train: ProbeData, scored: ProbeData) -> None:
    for name, data in (("training", train), ("scored", scored)):
        if not np.isfinite(data.embeddings).all():
            raise ValueError(f"embeddings of the {name} split hold NaN or inf; the encoder has diverged")
    if len(np.unique(train.groups)) < 2:
        raise ValueError("the training split is a single recording; give it clips of two recordings or more")
    missing = set(train.labels) ^ set(scored.labels)
    if missing:
        raise ValueError(
            f"classes {', '.join(sorted(missing))} are not in both the training and the scored split; "
            "give each class a recording group in every split, or leave the class out"
        )
