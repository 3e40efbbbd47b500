"""What an evaluation leaves: the predictions of every task and a list of the tasks, in one folder a split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import quote

from sonar.evaluate.predictions import Predictions, read_predictions, write_predictions
from sonar.evaluate.scores import Metric, TaskScore, score_predictions
from sonar.files import write_whole_text

Role = Literal["target", "prior", "control"]
FOLDER = "evaluation"
TASKS_FILE = "tasks.json"


class TaskResult(NamedTuple):
    """One task of an encoder, scored.

    Attributes:
        name: of the task.
        role: target, prior or control.
        metric: that the score is in.
        score: in percent; a function of the predictions.
        predictions: what the probe said.
    """

    name: str
    role: Role
    metric: Metric
    score: TaskScore
    predictions: Predictions


class Evaluation(NamedTuple):
    """Every task of one encoder on one split."""

    results: tuple[TaskResult, ...]

    def scores(self, role: Role) -> dict[str, float]:
        """Of the tasks of a role, by name, percent."""
        return {result.name: result.score.score for result in self.results if result.role == role}

    def classes(self, role: Role) -> dict[str, dict[str, float]]:
        """Of the tasks of a role the scores of their classes, percent."""
        return {result.name: result.score.classes for result in self.results if result.role == role}


def split_folder(folder: Path, split: str) -> Path:
    """Where the evaluation of a split lies below the folder of a trial, a base or a report."""
    return folder / FOLDER / split


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write `TASK.npz` for every task, then `tasks.json`: where that is there, all of them are."""
    rows = []
    for result in evaluation.results:
        file = f"{quote(result.name, safe=' ')}.npz"
        write_predictions(result.predictions, folder / file)
        named = {"name": result.name, "role": result.role, "metric": result.metric, "file": file}
        rows.append(named | {"score": result.score.score, "classes": result.score.classes})
    write_whole_text(folder / TASKS_FILE, json.dumps(rows, indent=1))


def read_evaluation(folder: Path) -> Evaluation:
    """Read what `write_evaluation` wrote; the scores are computed from the predictions anew.

    Raises:
        FileNotFoundError: there is no evaluation in the folder, or a file of it is missing.
        ValueError: a file holds no predictions.
    """
    path = folder / TASKS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"no evaluation in {folder}; give the folder of a finished trial, or evaluate it again")
    return Evaluation(tuple(_read_result(row, folder) for row in json.loads(path.read_text(encoding="utf-8"))))


def _read_result(row: Mapping[str, str], folder: Path) -> TaskResult:
    predictions = read_predictions(folder / Path(row["file"]).name)
    score = score_predictions(predictions, row["metric"])  # type: ignore[arg-type]  # as it was written
    return TaskResult(row["name"], row["role"], row["metric"], score, predictions)  # type: ignore[arg-type]
