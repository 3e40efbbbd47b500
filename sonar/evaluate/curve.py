"""Forgetting over time: the points of a run's curve and what they say, without any model.

A run that ends well may have forgotten much on its way and recovered: the stability gap. Source: De Lange et al.,
arXiv:2205.13452.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sonar.files import write_whole_text

CURVE_FILE = "curve.jsonl"


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """When the encoder is scored on all tasks.

    Attributes:
        every: steps of the model stage between two points of the forgetting curve; 0: only at the end.
        alphas: places on the line from the base (0) to the encoder that the run leaves (1) that are scored too, each at
            the cost of one evaluation, in rising order (WiSE-FT).
    """

    every: int = 0
    alphas: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no interval."""
        if self.every < 0:
            raise ValueError(f"every is {self.every}; give the steps between two evaluations, or 0 for none on the way")
        if list(self.alphas) != sorted(set(self.alphas)) or not all(0 < alpha < 1 for alpha in self.alphas):
            raise ValueError(
                f"alphas are {self.alphas}; give rising numbers between 0 and 1, without both: 0 is the base, and the "
                "encoder that the run leaves is scored in any case"
            )


class CurvePoint(NamedTuple):
    """One evaluation on the way.

    Attributes:
        stage: that was training; "base" before the first step, "end" for the encoder that the run leaves.
        step: of that stage, steps done; of "end", its last one.
        plasticity: percent of the base's score, as all that follow but the scores.
        forgetting_rate: mean over the prior tasks.
        forgetting_worst: of them.
        scores: of every task, percent.
    """

    stage: str
    step: int
    plasticity: float
    forgetting_rate: float
    forgetting_worst: float
    scores: dict[str, float]


class CurveSummary(NamedTuple):
    """What the forgetting curve of a run says; the base itself is no point of it.

    Attributes:
        forgetting_min: lowest forgetting rate, percent.
        forgetting_max: highest, percent.
        forgetting_max_step: the step at which it was first reached.
        stability_gap: highest forgetting rate minus the last one, percent; 0: the run ends at its worst.
        recovery_steps: steps from there until a point forgets no more than the last one.
    """

    forgetting_min: float
    forgetting_max: float
    forgetting_max_step: int
    stability_gap: float
    recovery_steps: int


def summarise_curve(points: Sequence[CurvePoint]) -> CurveSummary:
    """Extremes, stability gap and recovery of a curve.

    Args:
        points: in order of their steps, the last one of the encoder that the run leaves.

    Raises:
        ValueError: there is no point after the base, or the steps do not ascend.
    """
    trained = [point for point in points if point.stage != "base"]
    if not trained:
        raise ValueError("the curve has no point after the base; evaluate the trained encoder at least once")
    steps = [point.step for point in trained]
    if steps != sorted(set(steps)):
        raise ValueError(f"the steps of a curve must ascend, given are {steps}")
    rates = [point.forgetting_rate for point in trained]
    worst = rates.index(max(rates))
    recovered = next(index for index in range(worst, len(rates)) if rates[index] <= rates[-1])
    return CurveSummary(
        forgetting_min=min(rates),
        forgetting_max=rates[worst],
        forgetting_max_step=steps[worst],
        stability_gap=rates[worst] - rates[-1],
        recovery_steps=steps[recovered] - steps[worst],
    )


def read_curve(folder: Path) -> list[CurvePoint]:
    """The points in the folder of a trial, in order; none where nothing was evaluated yet."""
    path = folder / CURVE_FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [CurvePoint(**json.loads(line)) for line in lines]


def add_point(point: CurvePoint, folder: Path) -> None:
    """Write a point behind those of earlier steps; what stands there of its step and later ones is replaced.

    A run that was cut off repeats the steps since its last saved state, so that its points stay one a step.
    """
    kept = [earlier for earlier in read_curve(folder) if earlier.step < point.step]
    lines = [json.dumps(kept_point._asdict()) for kept_point in (*kept, point)]
    write_whole_text(folder / CURVE_FILE, "\n".join(lines) + "\n")
