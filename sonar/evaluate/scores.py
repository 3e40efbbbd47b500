"""Scores: functions of what a probe said of every scored clip.

Shapes: N clips, C classes.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np

from sonar.evaluate.predictions import Predictions

Metric = Literal["macro_f1", "accuracy", "map"]


class TaskScore(NamedTuple):
    """The score of one task in percent, and that of every class.

    Attributes:
        score: macro-F1, accuracy or mean average precision.
        classes: by name: F1; of accuracy the recall; of mAP the average precision.
    """

    score: float
    classes: dict[str, float]


def score_predictions(predictions: Predictions, metric: Metric) -> TaskScore:
    """The score that `metric` gives to predictions.

    Args:
        predictions: of one split; what counts as said of a clip is in `decided`.
        metric: macro_f1: mean F1 over the classes; accuracy: share of the clips whose class is right, of multi-class
            tasks only; map: mean over the classes of the average precision, which needs no decision.

    Raises:
        ValueError: another metric, a class that no scored clip has (its F1, recall and average precision are not
            defined), scores that are not finite, or the accuracy of a multi-label task.
    """
    from sklearn.metrics import accuracy_score, average_precision_score, f1_score  # a second, when a sweep is declared

    check_predictions(predictions, metric)
    truth, said = predictions.truth, decided(predictions)
    if metric == "map":
        values = np.atleast_1d(average_precision_score(truth, predictions.scores, average=None))
    elif metric == "macro_f1":
        average = None if truth.shape[1] > 1 else "binary"  # a table of one column is taken for labels 0 and 1
        values = np.atleast_1d(f1_score(truth, said, average=average, zero_division=0.0))
    else:
        values = (truth & said).sum(axis=0) / truth.sum(axis=0)
    score = accuracy_score(truth, said) if metric == "accuracy" else np.mean(values)
    by_class = {name: 100.0 * float(value) for name, value in zip(predictions.classes, values, strict=True)}
    return TaskScore(100.0 * float(score), by_class)


def chance_score(predictions: Predictions, metric: Metric, draws: int = 100, seed: int = 0) -> float:
    """Mean score, in percent, of guesses that know the classes' shares in the scored clips and nothing else.

    Each guess deals the true classes of the scored clips to them anew, in random order. (One class for all clips, or
    classes at equal shares, have another macro-F1.)
    """
    rng = np.random.default_rng(seed)
    guesses = (predictions.truth[rng.permutation(len(predictions.truth))] for _ in range(draws))
    scores = (guess.astype(np.float32) for guess in guesses)
    return float(np.mean([score_predictions(predictions._replace(scores=one), metric).score for one in scores]))


def is_multi_label(truth: np.ndarray) -> bool:
    """Whether some clip of (N, C) bool has no class, or several."""
    return bool((truth.sum(axis=1) != 1).any())


def decided(predictions: Predictions) -> np.ndarray:
    """(N, C) bool: the classes that the probe gives to each clip.

    Of a multi-class task the one of the largest score, the first of equal ones; of a multi-label task all whose score
    is above 0, where `run_probe` puts the threshold of every class.
    """
    if is_multi_label(predictions.truth):
        return predictions.scores > 0
    return np.eye(len(predictions.classes), dtype=np.bool_)[predictions.scores.argmax(axis=1)]


def check_predictions(predictions: Predictions, metric: Metric) -> None:
    """Raise the ValueErrors of `score_predictions`."""
    if metric not in get_args(Metric):
        raise ValueError(f"metric is {metric!r}; there are {', '.join(get_args(Metric))}")
    if not np.isfinite(predictions.scores).all():
        raise ValueError("scores of the probe hold NaN or inf; the encoder or the probe has diverged")
    there: np.ndarray = np.asarray(predictions.truth.any(axis=0))
    lacking = [name for name, found in zip(predictions.classes, there, strict=True) if not found]
    if lacking or not len(predictions.truth):
        raise ValueError(
            f"no scored clip has the class {', '.join(lacking)}, so its {metric} is not defined; give the class a "
            "clip in the scored split, or leave it out of the task"
        )
    if metric == "accuracy" and is_multi_label(predictions.truth):
        raise ValueError("accuracy needs exactly one class for every clip; score a multi-label task by map or macro_f1")
