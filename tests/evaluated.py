"""Made-up evaluations: what the tests of intervals, comparisons and noise share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from sonar.evaluate.predictions import Predictions
from sonar.evaluate.record import Evaluation, Role, TaskResult, split_folder, write_evaluation
from sonar.evaluate.scores import Metric, score_predictions


def make_predictions(
    seed: int = 0,
    *,
    num_classes: int = 3,
    recordings: int = 8,
    clips: int = 2,
    skill: float = 1.5,
    spread: float = 0.8,
) -> Predictions:
    """A classifier whose errors are alike within a recording.

    `recordings` of `clips` each per class; a class scores `skill` too much where it is right, and every recording
    shifts all its scores by noise of `spread`.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_classes), recordings * clips)
    groups = np.repeat(np.arange(num_classes * recordings), clips)
    truth = np.eye(num_classes, dtype=bool)[labels]
    shifts = spread * rng.standard_normal((num_classes * recordings, num_classes))
    scores = shifts[groups] + rng.standard_normal(truth.shape) + skill * truth
    return Predictions(
        clip_ids=np.asarray([f"c{row:04d}" for row in range(len(labels))]),
        groups=np.asarray([f"r{group:04d}" for group in groups]),
        classes=tuple(f"k{number}" for number in range(num_classes)),
        truth=truth,
        scores=scores.astype(np.float32),
    )


def noisier(predictions: Predictions, seed: int, noise: float = 0.5, help_truth: float = 0.0) -> Predictions:
    """Another model on the same clips: its scores are those of the first, noise, and a push to or from the truth."""
    rng = np.random.default_rng(seed)
    moved = noise * rng.standard_normal(predictions.scores.shape) + help_truth * predictions.truth
    return predictions._replace(scores=(predictions.scores + moved).astype(np.float32))


def without_class(predictions: Predictions, column: int) -> Predictions:
    """A model that never says a class."""
    scores = predictions.scores.copy()
    scores[:, column] = scores.min() - 1.0
    return predictions._replace(scores=scores)


def evaluation(*tasks: tuple[str, Role, Predictions], metric: Metric = "macro_f1") -> Evaluation:
    """Of (name, role, predictions)."""
    return Evaluation(
        tuple(
            TaskResult(name, role, metric, score_predictions(predictions, metric), predictions)
            for name, role, predictions in tasks
        )
    )


def write_run(folder: Path, made: Evaluation, config: dict[str, Any] | None = None, base: str = "base-0") -> Path:
    """A finished trial's folder, as far as it is read again."""
    write_evaluation(made, split_folder(folder, "dev"))
    provenance = folder / "checkpoint" / "provenance.json"
    provenance.parent.mkdir()
    provenance.write_text(json.dumps({"trial": config or {"training": {"seed": 0}}, "base": base}), encoding="utf-8")
    return folder
