"""Metrics of plasticity and forgetting: pure functions of scores.

R(i, j) is the score on task j after stage i; stage 0 is the base model (docs/method.md, metrics).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

Scores = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class ScoreMatrix:
    """R: the score on every task after every stage of a sequence of domains.

    Attributes:
        stages: names; the first is the base model, stage 0.
        tasks: names.
        learned_at: of each task, the stage that trained on its domain; 0: the base already knew it, a prior task.
        scores: one row per stage, one score per task, all in the same unit.
    """

    stages: tuple[str, ...]
    tasks: tuple[str, ...]
    learned_at: tuple[int, ...]
    scores: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        """Refuse a matrix whose parts do not fit together."""
        shape = (len(self.stages), len(self.tasks))
        if len(self.scores) != shape[0] or {len(row) for row in self.scores} != {shape[1]}:
            raise ValueError(f"scores must be {shape[0]} rows, one per stage, of {shape[1]} numbers, one per task")
        if len(set(self.tasks)) < shape[1] or len(set(self.stages)) < shape[0]:
            raise ValueError(f"stages {list(self.stages)} and tasks {list(self.tasks)} must have different names each")
        if len(self.learned_at) != shape[1] or not all(0 <= stage < shape[0] for stage in self.learned_at):
            raise ValueError(f"learned_at is {list(self.learned_at)}; give each task a stage from 0 to {shape[0] - 1}")

    def row(self, stage: int, tasks: tuple[str, ...] | None = None) -> dict[str, float]:
        """Scores after a stage (-1: the last one), by task; of some tasks or of all."""
        scores = dict(zip(self.tasks, self.scores[stage], strict=True))
        return scores if tasks is None else {task: scores[task] for task in tasks}

    def learned(self, first: int, last: int) -> dict[str, int]:
        """The tasks learned at the stages `first` to `last`, and when."""
        return {t: at for t, at in zip(self.tasks, self.learned_at, strict=True) if first <= at <= last}


class ContinualMetrics(NamedTuple):
    """What a sequence of T domains cost and brought; T is its last stage.

    Attributes:
        plasticity: mean gain over the target tasks from base to T, percent of the base model's score.
        forgetting_rate: of every prior task from base to T, percent.
        forgetting_mean: over the prior tasks, percent.
        forgetting_worst: over the prior tasks, percent.
        stability: mean retention over the prior tasks, percent.
        backward_transfer: see the function; in the unit of the scores, as all that follow.
        forgetting_from_best: of every task that was learned before T.
        forgetting_from_best_mean: over them.
        forward_transfer: see the function.
    """

    plasticity: float
    forgetting_rate: dict[str, float]
    forgetting_mean: float
    forgetting_worst: float
    stability: float
    backward_transfer: float
    forgetting_from_best: dict[str, float]
    forgetting_from_best_mean: float
    forward_transfer: float


def continual_metrics(matrix: ScoreMatrix, random_init: Scores) -> ContinualMetrics:
    """All metrics of a sequence.

    Args:
        matrix: R.
        random_init: score of an encoder with random weights, at least on every target task.

    Raises:
        ValueError: no prior task, no target task, none learned before the last stage, or a base that scores 0.
    """
    last = len(matrix.stages) - 1
    prior, target = tuple(matrix.learned(0, 0)), tuple(matrix.learned(1, last))
    before, after = matrix.row(0, prior), matrix.row(-1, prior)
    from_best = forgetting_from_best(matrix)
    return ContinualMetrics(
        plasticity=plasticity(matrix.row(0, target), matrix.row(-1, target)),
        forgetting_rate=forgetting_rates(before, after),
        forgetting_mean=mean_forgetting(before, after),
        forgetting_worst=worst_forgetting(before, after),
        stability=stability(before, after),
        backward_transfer=backward_transfer(matrix),
        forgetting_from_best=from_best,
        forgetting_from_best_mean=fmean(from_best.values()),
        forward_transfer=forward_transfer(matrix, random_init),
    )


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


def retention(before: float, after: float) -> float:
    """Share of a prior score that is kept, in percent: 100 - forgetting rate."""
    return 100.0 - forgetting_rate(before, after)


def forgetting_rates(before: Scores, after: Scores) -> dict[str, float]:
    """Forgetting rate of every task, in percent.

    Raises:
        ValueError: other tasks before than after, none, or a base that scores 0.
    """
    if not before or before.keys() != after.keys():
        raise ValueError(f"tasks before {sorted(before)} and after {sorted(after)} must be the same and at least one")
    return {task: forgetting_rate(before[task], after[task]) for task in before}


def mean_forgetting(before: Scores, after: Scores) -> float:
    """Mean forgetting rate over the prior tasks, in percent."""
    return fmean(forgetting_rates(before, after).values())


def worst_forgetting(before: Scores, after: Scores) -> float:
    """Largest forgetting rate over the prior tasks, in percent."""
    return worst_task(before, after).lost


class Worst(NamedTuple):
    """What was forgotten most: its name and how much was lost."""

    name: str
    lost: float


def worst_task(before: Scores, after: Scores) -> Worst:
    """The prior task with the largest forgetting rate, in percent; of equal ones the first by name."""
    return _worst(forgetting_rates(before, after))


def worst_class(before: Mapping[str, Scores], after: Mapping[str, Scores]) -> Worst:
    """The class of the prior tasks that lost most, in points of its score, as `TASK/CLASS`; of equal ones the first.

    In points and not as a share: a class is a few clips, and one that the base scores 0 has no share to lose.

    Args:
        before: of every task the scores of its classes, percent.
        after: of the same tasks and classes.

    Raises:
        ValueError: other tasks or classes before than after, or none.
    """
    lost: dict[str, float] = {}
    for task in before.keys() | after.keys():
        was, now = before.get(task, {}), after.get(task, {})
        if not was or was.keys() != now.keys():
            raise ValueError(f"classes of task {task} before {sorted(was)} and after {sorted(now)} must be the same")
        lost |= {f"{task}/{name}": was[name] - now[name] for name in was}
    if not lost:
        raise ValueError("no prior task has classes to compare; score at least one")
    return _worst(lost)


def _worst(lost: Scores) -> Worst:
    name = min(lost, key=lambda name: (-lost[name], name))
    return Worst(name, lost[name])


def stability(before: Scores, after: Scores) -> float:
    """Mean retention over the prior tasks, in percent."""
    return fmean(retention(before[task], after[task]) for task in forgetting_rates(before, after))


def plasticity(before: Scores, after: Scores) -> float:
    """Mean gain over the target tasks, in percent of the base model's score."""
    return 0.0 - mean_forgetting(before, after)  # not -x: an unchanged score is 0.0, not -0.0


def backward_transfer(matrix: ScoreMatrix) -> float:
    """Mean of R_Tj - R_jj over the tasks j learned at stages 1 to T - 1: what later domains did to earlier ones.

    Raises:
        ValueError: there is no such task.

    Source: GEM, arXiv:1706.08840.
    """
    last = len(matrix.stages) - 1
    learned = matrix.learned(1, last - 1)
    if not learned:
        raise ValueError("no task was learned before the last stage; backward transfer needs two domains or more")
    return fmean(matrix.row(last)[task] - matrix.row(at)[task] for task, at in learned.items())


def forgetting_from_best(matrix: ScoreMatrix) -> dict[str, float]:
    """Best R_ij of all i < T, minus R_Tj, of every task j learned before T, prior ones too; below 0: T is the best.

    Source: Chaudhry et al., arXiv:1801.10112.
    """
    last = len(matrix.stages) - 1
    final = matrix.row(last)
    return {
        task: max(matrix.row(stage)[task] for stage in range(last)) - final[task]
        for task in matrix.learned(0, last - 1)
    }


def forward_transfer(matrix: ScoreMatrix, random_init: Scores) -> float:
    """Mean of R_(j-1)j - b_j over the target tasks: how well what came before serves a domain not yet seen.

    b_j is the score of a random encoder. Unlike a sequence that starts from scratch, the first domain counts: stage 0
    is a trained base.

    Raises:
        ValueError: no target task, or one without a score in `random_init`.

    Source: GEM, arXiv:1706.08840.
    """
    learned = matrix.learned(1, len(matrix.stages) - 1)
    if not learned or not learned.keys() <= random_init.keys():
        raise ValueError(f"target tasks {sorted(learned)} need scores at random, given are {sorted(random_init)}")
    return fmean(matrix.row(at - 1)[task] - random_init[task] for task, at in learned.items())
