"""Two sides compared on the same clips: which is better by how much, on which task and class, and who was forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from sonar.evaluate.bootstrap import Interval, Resampling, percentile_interval
from sonar.evaluate.pairing import ROUNDING, PairedAxes, PairedScores, align, holm, swap_test
from sonar.evaluate.record import Evaluation, TaskResult


class Change(NamedTuple):
    """What differs between two sides on a task, or on one class of it.

    Attributes:
        task: its name.
        role: of the task.
        label: the class; "" for the whole task.
        first: score of the first side, percent; mean over its runs.
        second: of the second side.
        difference: second - first.
        interval: of the difference, over recordings and, where a side has several runs, over runs.
        p_value: of the swap test, for this line alone.
        p_holm: corrected for all lines of its table.
        num_clips: scored clips of the task or class.
        num_groups: recordings that they come from.
        is_certain: the interval excludes 0 and the corrected p-value does not exceed what the interval leaves.
    """

    task: str
    role: str
    label: str
    first: float
    second: float
    difference: float
    interval: Interval
    p_value: float
    p_holm: float
    num_clips: int
    num_groups: int
    is_certain: bool


class Estimate(NamedTuple):
    """A number and its interval, in percent of the base's score."""

    value: float
    interval: Interval


class Axis(NamedTuple):
    """Plasticity or forgetting of both sides against the base, and second - first."""

    name: str
    first: Estimate
    second: Estimate
    difference: Estimate


class Dominance(NamedTuple):
    """Share of the resamples in which a side has no less plasticity and no more forgetting, and one of them strictly.

    The two do not add up to 1: in the other resamples each side is better on one axis, or both are equal.
    """

    first: float
    second: float


class AxisComparison(NamedTuple):
    """Both axes of two sides that were adapted from one base."""

    plasticity: Axis
    forgetting_rate: Axis
    dominates: Dominance


class Changes(NamedTuple):
    """Of every task, and of every class of every task: two tables, each a family of tests."""

    tasks: tuple[Change, ...]
    classes: tuple[Change, ...]


def compare_changes(first: Sequence[Evaluation], second: Sequence[Evaluation], config: Resampling) -> Changes:
    """Second minus first, for every task and class; base first and adapted second says who was forgotten.

    Args:
        first: one evaluation per run (seed) of the first side.
        second: of the second.
        config: resamples, seed, level.

    Raises:
        ValueError: other tasks, clips, classes, labels or recordings; the difference is named.
    """
    paired = PairedScores(first[0], config)
    scores = paired.mean(first), paired.mean(second)
    rng = np.random.default_rng(config.seed)
    runs_1, runs_2 = ([align(paired.tasks, run) for run in side] for side in (first, second))
    tasks, classes = [], []
    for number, task in enumerate(paired.tasks):
        side_1, side_2 = ([results[number].predictions for results in runs] for runs in (runs_1, runs_2))
        test = swap_test(side_1, side_2, task.metric, config.num, rng)
        one, two = (side[task.name] for side in scores)
        tasks.append(_change(task, "", one.score, two.score, (config.level, test.score)))
        for column, label in enumerate(task.predictions.classes):
            values = one.classes[:, column], two.classes[:, column]
            classes.append(_change(task, label, *values, (config.level, float(test.classes[column]))))
    return Changes(_corrected(tasks, config.level), _corrected(classes, config.level))


def compare_axes(
    first: Sequence[Evaluation], second: Sequence[Evaluation], base: Evaluation, config: Resampling
) -> AxisComparison:
    """Plasticity and forgetting of two sides, which share the base and every resample.

    Raises:
        ValueError: as `compare_changes`; no target or prior task; or a base that scores 0 on a task in a resample.
    """
    axes = PairedAxes(base, config)
    (plastic_1, forgot_1), (plastic_2, forgot_2) = (axes.values(side) for side in (first, second))
    gains = np.stack([plastic_1 - plastic_2, forgot_2 - forgot_1], axis=1)
    return AxisComparison(
        plasticity=_axis("plasticity", plastic_1, plastic_2, config.level),
        forgetting_rate=_axis("forgetting_rate", forgot_1, forgot_2, config.level),
        dominates=dominance_of(gains[1:]),
    )


def dominance_of(gains: np.ndarray) -> Dominance:
    """Of (R, 2) gains of the first side over the second: more plasticity, less forgetting."""
    return Dominance(_share(gains), _share(-gains))


def lost_most(changes: Iterable[Change], count: int) -> list[Change]:
    """The `count` lines that lost most, the largest loss first; lines that gained are not among them."""
    return sorted((change for change in changes if change.difference < 0), key=lambda c: c.difference)[:count]


def verdict_of_losses(classes: Sequence[Change]) -> str:
    """One sentence: which classes are certain to have been lost, or plainly that none is."""
    lost = [change for change in classes if change.is_certain and change.difference < 0]
    if lost:
        names = ", ".join(f"{change.label} ({change.task} {change.difference:+.1f})" for change in lost)
        return f"certain to have been lost: {names}"
    apart = [change for change in classes if change.interval.high < 0]
    if not apart:
        return "no class is certain to have been lost: all intervals reach 0"
    return (
        f"no class is certain to have been lost: {len(apart)} of {len(classes)} intervals lie below 0, "
        "but so many classes were tested on so few recordings that chance may do that"
    )


def _change(task: TaskResult, label: str, first: np.ndarray, second: np.ndarray, judged: tuple[float, float]) -> Change:
    """One line, not yet corrected for the others; `judged` is the interval's level and the p-value."""
    level, p_value = judged
    truth, groups = task.predictions.truth, task.predictions.groups
    of = truth[:, task.predictions.classes.index(label)] if label else np.ones(len(truth), dtype=bool)
    difference = second - first
    return Change(
        task=task.name,
        role=task.role,
        label=label,
        first=float(first[0]),
        second=float(second[0]),
        difference=float(difference[0]),
        interval=percentile_interval(difference[1:], level),
        p_value=p_value,
        p_holm=p_value,
        num_clips=int(of.sum()),
        num_groups=len(np.unique(groups[of])),
        is_certain=False,
    )


def _corrected(changes: Sequence[Change], level: float) -> tuple[Change, ...]:
    adjusted = holm(np.asarray([change.p_value for change in changes]))
    return tuple(
        change._replace(p_holm=float(p), is_certain=bool(change.interval.excludes(0.0) and p <= 1.0 - level))
        for change, p in zip(changes, adjusted, strict=True)
    )


def _axis(name: str, first: np.ndarray, second: np.ndarray, level: float) -> Axis:
    rows = (first, second, second - first)
    return Axis(name, *(Estimate(float(row[0]), percentile_interval(row[1:], level)) for row in rows))


def _share(gains: np.ndarray) -> float:
    no_worse, better = (gains >= -ROUNDING).all(axis=1), (gains > ROUNDING).any(axis=1)
    return float((no_worse & better).mean())
