"""Metrics of plasticity and forgetting: pure functions of scores.

R(i, j) is the score on task j after stage i; stage 0 is the base model (docs/method.md, metrics).
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

Scores = Mapping[str, float]


def forgetting_rate(before: float, after: float) -> float:
    """Share of a prior score that is lost, in percent; negative when the score rose.

    Args:
        before: score of the base model, > 0.
        after: score after adaptation, in the same unit.

    Raises:
        ValueError: `before` is not positive, so that no share of it can be stated.

    Source: FR = 100 (before - after) / before; gives the paper's 60.6 % for 34.8 -> 13.7.
    """
    if before <= 0:
        raise ValueError(
            f"the base scores {before} on a task, so no share of it can be stated; check the task's labels"
        )
    return 100.0 * (before - after) / before


def mean_forgetting(before: Scores, after: Scores) -> float:
    """Mean forgetting rate over the prior tasks, in percent."""
    return fmean(_rates(before, after))


def worst_forgetting(before: Scores, after: Scores) -> float:
    """Largest forgetting rate over the prior tasks, in percent."""
    return max(_rates(before, after))


def plasticity(before: Scores, after: Scores) -> float:
    """Mean gain over the target tasks, in percent of the base model's score."""
    return 0.0 - fmean(_rates(before, after))  # not -x: an unchanged score is 0.0, not -0.0


def _rates(before: Scores, after: Scores) -> list[float]:
    if not before or before.keys() != after.keys():
        raise ValueError(f"tasks before {sorted(before)} and after {sorted(after)} must be the same and at least one")
    return [forgetting_rate(before[task], after[task]) for task in before]
