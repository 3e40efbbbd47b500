"""Scores: functions of what a probe said of every scored clip.

Shapes: N clips, C classes.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from sonar.evaluate.predictions import Predictions

Metric = Literal["macro_f1", "accuracy", "map"]


class TaskScore(NamedTuple):
    """The score of one task in percent, and that of every class (of accuracy: the class's recall)."""

    score: float
    classes: dict[str, float]


def score_predictions(predictions: Predictions, metric: Metric) -> TaskScore:
    """The score that `metric` gives to predictions."""
    truth, scores = predictions.truth, predictions.scores
    if metric == "map":
        values = average_precision_score(truth, scores, average=None)
    else:
        true, said = truth.argmax(1), scores.argmax(1)
        labels = np.arange(len(predictions.classes))
        values = f1_score(true, said, average=None, labels=labels, zero_division=0.0)
        if metric == "accuracy":
            values = np.asarray([(said[true == label] == label).mean() for label in labels])
            per_class = dict(zip(predictions.classes, (100 * values).tolist(), strict=True))
            return TaskScore(100 * float(accuracy_score(true, said)), per_class)
    return TaskScore(100 * float(np.mean(values)), dict(zip(predictions.classes, (100 * values).tolist(), strict=True)))
