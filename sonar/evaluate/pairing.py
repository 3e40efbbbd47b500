"""Several evaluations of the same clips on the same resamples; and the exact test of two of them.

Shapes: R resamples, T rows (the clips as they are, then the R resamples), S runs, G groups, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import lcm
from typing import NamedTuple

import numpy as np

from sonar.evaluate.bootstrap import Resampling, WeightedScorer, WeightedScores, draw_weights, units
from sonar.evaluate.predictions import Predictions
from sonar.evaluate.record import Evaluation, TaskResult
from sonar.evaluate.scores import Metric

ROUNDING = 1e-9  # percent: means of the same scores over other runs may differ in their last bits
SHOWN = 3  # names in a message
FEW = 10  # recordings, below which a bootstrap is known to give short intervals


class PairedScores:
    """Mean scores of runs, task by task, on resamples that all runs share.

    A row of a mean is one draw of runs and, for every task, of recordings; row 0 is all of them as they are.
    """

    def __init__(self, reference: Evaluation, config: Resampling) -> None:
        """Draw the recordings of every task of `reference`."""
        self.tasks = reference.results
        self._config = config
        self._rng = np.random.default_rng(config.seed)
        self._weights = {task.name: self._draw(task) for task in self.tasks}

    def mean(self, runs: Sequence[Evaluation]) -> dict[str, WeightedScores]:
        """T rows for every task: of the mean over runs, which are themselves drawn anew in every resample.

        Raises:
            ValueError: a run was not scored on the clips of the reference; the difference is named.
        """
        shares = run_shares(len(runs), self._config.num, self._rng)
        aligned = [align(self.tasks, run) for run in runs]
        found = {}
        for number, task in enumerate(self.tasks):
            score, classes = 0.0, 0.0
            for run, results in enumerate(aligned):
                scored = WeightedScorer(results[number].predictions, task.metric)(self._weights[task.name])
                score = score + shares[:, run] * scored.score
                classes = classes + shares[:, run, None] * scored.classes
            found[task.name] = WeightedScores(np.asarray(score), np.asarray(classes))
        return found

    def _draw(self, task: TaskResult) -> np.ndarray:
        num_groups = len(np.unique(units(task.predictions)))
        return np.concatenate([np.ones((1, num_groups)), draw_weights(num_groups, self._config.num, self._rng)])


class AxisValues(NamedTuple):
    """(T,) of both axes, in percent of the base's score in the same row."""

    plasticity: np.ndarray
    forgetting_rate: np.ndarray


class PairedAxes:
    """Both axes of what was adapted from one base: the definitions of metrics.py, row by row of `PairedScores`.

    Attributes:
        without_score: target and prior tasks that the base scores 0 in a resample: no share of it can be stated there.
    """

    def __init__(self, base: Evaluation, config: Resampling) -> None:
        """Draw the recordings and score the base on each draw; the draws hang on its clips and the seed alone."""
        self._paired = PairedScores(base, config)
        self._before = self._paired.mean([base])
        self._roles = {task.name: task.role for task in self._paired.tasks}
        judged = [name for name, role in self._roles.items() if role in ("target", "prior")]
        self.without_score = [name for name in judged if (self._before[name].score <= 0).any()]

    def values(self, runs: Sequence[Evaluation]) -> AxisValues:
        """Of a side: of the mean over its runs.

        Raises:
            ValueError: as `PairedScores.mean`; no target or prior task; or a task `without_score`.
        """
        if self.without_score:
            raise ValueError(
                f"the base scores 0 on task {self.without_score[0]} in some resamples, so no share of it can be stated "
                "there; the task has too few clips, or the base knows nothing of it"
            )
        after = self._paired.mean(runs)
        kept = {role: self._kept(after, role) for role in ("target", "prior")}
        return AxisValues(100.0 * (kept["target"] - 1.0), 100.0 * (1.0 - kept["prior"]))

    def _kept(self, after: Mapping[str, WeightedScores], role: str) -> np.ndarray:
        """(T,) mean share of the base's score over the tasks of a role."""
        names = [name for name, of in self._roles.items() if of == role]
        if not names:
            raise ValueError(f"no {role} task among {', '.join(self._roles)}; both axes need a target and a prior task")
        return np.mean([after[name].score / self._before[name].score for name in names], axis=0)


def run_shares(num_runs: int, num: int, rng: np.random.Generator) -> np.ndarray:
    """(1 + num, S): the share of every run in a mean; 1/S in row 0, then of S draws with replacement.

    A mean of S draws has (S - 1)/S of the variance that a mean of S runs has, which is a third too little for three
    runs; the shares are stretched about 1/S, so that it is right. Some are then below 0.
    """
    even = np.full((1, num_runs), 1.0 / num_runs)
    if num_runs == 1:
        return np.ones((1 + num, 1))
    drawn = draw_weights(num_runs, num, rng) / num_runs
    return np.concatenate([even, even + (drawn - even) * (num_runs / (num_runs - 1)) ** 0.5])


def align(tasks: Sequence[TaskResult], run: Evaluation) -> list[TaskResult]:
    """The tasks of a run in the order of `tasks`, and their clips too.

    Raises:
        ValueError: other tasks, clips, labels, classes or recording groups.
    """
    named = {result.name: result for result in run.results}
    if named.keys() != {task.name for task in tasks}:
        raise ValueError(
            f"the runs have other tasks: {_difference([task.name for task in tasks], list(named))}; "
            "compare runs of the same corpora"
        )
    return [_align(task, named[task.name]) for task in tasks]


def _align(task: TaskResult, other: TaskResult) -> TaskResult:
    first, second = task.predictions, other.predictions
    for what, one, two in (("metrics", task.metric, other.metric), ("roles", task.role, other.role)):
        if one != two:
            raise ValueError(f"task {task.name} has the {what} {one} and {two}; evaluate both in the same way")
    for what, ours, theirs in (("clips", first.clip_ids, second.clip_ids), ("classes", first.classes, second.classes)):
        if set(ours) != set(theirs) or len(ours) != len(theirs):
            raise ValueError(
                f"task {task.name} was scored on other {what}: {_difference(list(ours), list(theirs))}; "
                "evaluate both runs on the same clips"
            )
    rows = np.argsort(second.clip_ids)[np.argsort(np.argsort(first.clip_ids))]
    columns = np.asarray([second.classes.index(name) for name in first.classes])
    aligned = Predictions(
        clip_ids=second.clip_ids[rows],
        groups=second.groups[rows],
        classes=first.classes,
        truth=second.truth[np.ix_(rows, columns)],
        scores=second.scores[np.ix_(rows, columns)],
    )
    changed = (aligned.truth != first.truth).any(axis=1) | (aligned.groups != first.groups)
    if changed.any():
        names = ", ".join(map(str, first.clip_ids[changed][:SHOWN]))
        raise ValueError(
            f"task {task.name}: {changed.sum()} clips have other labels or recording groups ({names}); "
            "evaluate both runs on the same manifest"
        )
    return other._replace(predictions=aligned)


def _difference(ours: Sequence[str], theirs: Sequence[str]) -> str:
    parts = []
    for side, only in (("first", sorted(set(ours) - set(theirs))), ("second", sorted(set(theirs) - set(ours)))):
        if only:
            more = f" and {len(only) - SHOWN} more" if len(only) > SHOWN else ""
            parts.append(f"only in the {side} {', '.join(map(str, only[:SHOWN]))}{more}")
    return "; ".join(parts) or "one of them is there twice"


def few_recordings(tasks: Sequence[TaskResult]) -> list[str]:
    """A sentence for each task whose recordings are too few for an interval that can be trusted."""
    notes = []
    for task in tasks:
        count = len(np.unique(task.predictions.groups))
        if count == 1:
            notes.append(f"{task.name} is one recording: its clips are resampled, and other recordings may differ more")
        elif count < FEW:
            notes.append(f"{task.name} has {count} recordings: its intervals are too short")
    return notes


class SwapTest(NamedTuple):
    """Two-sided p-values of "the two models are alike": of the score, and (C,) of the classes."""

    score: float
    classes: np.ndarray


def swap_test(
    first: Sequence[Predictions], second: Sequence[Predictions], metric: Metric, num: int, rng: np.random.Generator
) -> SwapTest:
    """How often a difference this large arises when, recording by recording, the models are exchanged at random.

    Exact for few recordings, where an interval is too short: three can give no p below 1/4. It is of these runs: what
    other seeds would do is not in it.

    Args:
        first: predictions of the runs of one side, on the same clips in the same order.
        second: of the other.
        metric: that they are scored in.
        num: exchanges that are drawn; no p is below 1 / (num + 1).
        rng: of the draws.
    """
    num_groups = len(np.unique(units(first[0])))
    kept = np.concatenate([np.ones((1, num_groups)), rng.integers(0, 2, size=(num, num_groups))])
    ours, theirs = np.concatenate([kept, 1 - kept], axis=1), np.concatenate([1 - kept, kept], axis=1)
    pairs = lcm(len(first), len(second))
    score, classes = 0.0, 0.0
    for pair in range(pairs):
        scorer = WeightedScorer(_stacked(first[pair % len(first)], second[pair % len(second)]), metric)
        one, two = scorer(ours), scorer(theirs)
        score, classes = score + (one.score - two.score), classes + (one.classes - two.classes)
    return SwapTest(float(_p_value(np.asarray(score))), _p_value(np.asarray(classes)))


def _stacked(first: Predictions, second: Predictions) -> Predictions:
    """Both as one table, where a recording is there twice: the groups of the first sort before all of the second."""
    groups = [np.char.add(prefix, units(table).astype(str)) for prefix, table in (("0", first), ("1", second))]
    both = (
        np.concatenate([getattr(first, field), getattr(second, field)]) for field in ("clip_ids", "truth", "scores")
    )
    clip_ids, truth, scores = both
    return Predictions(clip_ids, np.concatenate(groups), first.classes, truth, scores)


def _p_value(differences: np.ndarray) -> np.ndarray:
    """Of (T, ...) differences, the first of them observed."""
    size = np.abs(differences)
    return (size >= size[:1] - ROUNDING).mean(axis=0)


def holm(p_values: np.ndarray) -> np.ndarray:
    """p-values of a family of tests, raised so that a false alarm anywhere in it is as rare as they say.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    order = np.argsort(p_values)
    raised = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(raised, 1.0)
    return adjusted
