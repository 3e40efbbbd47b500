"""Linear probes: ridge in closed form for all penalties at once, and logistic regression.

Shapes: N clips, D width, C classes, P candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

from sonar.evaluate.probes.data import class_weights
from sonar.evaluate.scores import is_multi_label

ABSENT = -np.inf  # score of a class that no fitted clip has


def ridge_scores(
    fitted: np.ndarray, targets: np.ndarray, features: np.ndarray, penalties: Sequence[float]
) -> np.ndarray:
    """Scores of ridge classifiers of several penalties, from one eigendecomposition.

    Targets are 1 and -1, the intercept takes no penalty. In a multi-class task clips weigh so that classes count alike,
    as with scikit-learn's `class_weight="balanced"`, which this equals; in a multi-label task all clips weigh the same.

    Args:
        fitted: (N, D) float, standardised.
        targets: (N, C) bool of the fitted clips.
        features: (M, D) float, standardised by what `fitted` was.
        penalties: P of them, > 0.

    Returns:
        (P, M, C) float64; -inf for a class that no fitted clip has.
    """
    fitted, features = fitted.astype(np.float64), features.astype(np.float64)
    weights = np.ones(len(fitted)) if is_multi_label(targets) else class_weights(targets)[targets.argmax(axis=1)]
    signs = np.where(targets, 1.0, -1.0)
    centre, offset = (np.average(values, axis=0, weights=weights) for values in (fitted, signs))
    root = np.sqrt(weights)[:, None]
    inputs, outputs = root * (fitted - centre), root * (signs - offset)
    if len(inputs) >= inputs.shape[1]:
        values, vectors = np.linalg.eigh(inputs.T @ inputs)
        left, right = (features - centre) @ vectors, vectors.T @ (inputs.T @ outputs)  # (M, D), (D, C)
    else:  # fewer clips than dimensions: the same from the smaller matrix
        values, vectors = np.linalg.eigh(inputs @ inputs.T)
        left, right = (features - centre) @ (inputs.T @ vectors), vectors.T @ outputs  # (M, N), (N, C)
    scores = np.stack([(left / (values.clip(min=0.0) + penalty)) @ right + offset for penalty in penalties])
    scores[:, :, ~targets.any(axis=0)] = ABSENT
    return scores


def logistic_scores(
    fitted: np.ndarray, targets: np.ndarray, features: np.ndarray, inverse_penalties: Sequence[float]
) -> np.ndarray:
    """Logits of logistic regressions of several penalties: softmax where multi-class, else one for each class.

    Clips weigh so that the sides of every decision count alike; else a threshold that folds agree on would follow the
    shares of a class in them. Args and Returns as of `ridge_scores`.
    """
    return np.stack([_logits(fitted, targets, features, inverse) for inverse in inverse_penalties])


def _logits(fitted: np.ndarray, targets: np.ndarray, features: np.ndarray, inverse: float) -> np.ndarray:
    scores = np.full((len(features), targets.shape[1]), ABSENT)
    if is_multi_label(targets):
        for number in np.flatnonzero(targets.any(axis=0)):
            scores[:, number] = _binary_logits(fitted, targets[:, number], features, inverse)
        return scores
    present = np.flatnonzero(targets.any(axis=0))
    if len(present) == 1:
        scores[:, present] = 0.0
        return scores
    model = LogisticRegression(C=inverse, class_weight="balanced", max_iter=1000).fit(fitted, targets.argmax(axis=1))
    logits = model.decision_function(features)
    scores[:, present] = np.stack([-logits, logits], axis=1) if logits.ndim == 1 else logits
    return scores


def _binary_logits(fitted: np.ndarray, target: np.ndarray, features: np.ndarray, inverse: float) -> np.ndarray:
    if target.all():
        return np.zeros(len(features))
    return (
        LogisticRegression(C=inverse, class_weight="balanced", max_iter=1000)
        .fit(fitted, target)
        .decision_function(features)
    )
