"""Which configuration comes next: Optuna's ask and tell around the journal, which is the only truth.

The study lives in memory and is rebuilt from the journal, so a resumed sweep asks from the same told trials.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from sonar.config import to_dict
from sonar.experiment import TrialConfig, apply_preset
from sonar.search.journal import Journal, TrialRecord
from sonar.search.space import Choice, Dimension, IntUniform, LogUniform, Sweep, apply, contains

ANCHOR, SEARCH = "anchor", "search"
# A trial that was stopped early has no values that compare with others. As PRUNED alone it would count as better than
# every finished trial above the forgetting limit; this violation, larger than any of theirs, puts it behind them.
STOPPED = ("stopped", 1e6)


class Suggestion(NamedTuple):
    """A trial to run: its name in the sweep, whether it is an anchor, its parameters and whole configuration."""

    trial_id: str
    kind: str
    params: dict[str, Any]
    config: TrialConfig


class TrialSource:
    """Gives the trials of one sweep and takes their results; every step is in the journal before it counts.

    Order: trials that an earlier driver began and nobody finished, anchors, the base configuration, then Optuna.
    A trial without finite objectives is failed with the reason, in the journal and in the study.
    """

    def __init__(self, sweep: Sweep, journal: Journal, seed: int) -> None:
        """Continue from the journal's state; `sweep.num_trials` counts searched trials, not anchors."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._sweep, self._journal, self._seed = sweep, journal, seed
        self._distributions = {key: _distribution(dimension) for key, dimension in sweep.space.items()}
        ways = sweep.objectives.values()
        directions = [StudyDirection.MAXIMIZE if way == "max" else StudyDirection.MINIMIZE for way in ways]
        self._study = optuna.create_study(directions=directions)
        self._asked: dict[str, optuna.Trial] = {}
        known = list(journal.state.trials.values())
        for record in known:
            if record.kind == SEARCH and record.is_finished:
                self._study.add_trial(self._frozen(record))
        self._unfinished = deque(record for record in known if not record.is_finished)
        begun = {record.trial_id for record in known}
        self._anchors = deque(name for name in sweep.anchors if f"anchor-{name}" not in begun)
        self._num_searched = sum(record.kind == SEARCH for record in known)

    def suggest(self) -> Suggestion | None:
        """The next trial, or None when all have been given out."""
        if self._unfinished:
            return self._again(self._unfinished.popleft())
        if self._anchors:
            name = self._anchors.popleft()
            return self._record(Suggestion(f"anchor-{name}", ANCHOR, {}, apply_preset(self._sweep.base, name)))
        if self._num_searched >= self._sweep.num_trials:
            return None
        trial_id = f"trial-{self._num_searched:03d}"
        params = self._ask(trial_id)
        self._num_searched += 1
        return self._record(Suggestion(trial_id, SEARCH, params, apply(self._sweep, params)))

    def tell(self, trial_id: str, metrics: Mapping[str, float], checkpoint: str) -> None:
        """Record a finished trial; one whose objectives are missing or not finite is failed instead."""
        wrong = [
            f"{name} is {metrics[name]}" if name in metrics else f"{name} never arrived"
            for name in self._sweep.objectives
            if not math.isfinite(metrics.get(name, math.nan))
        ]
        if wrong:
            self.fail(trial_id, "; ".join(wrong))
            return
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self._journal.append("told", trial_id=trial_id, metrics=finite, checkpoint=checkpoint)
        if trial := self._asked.pop(trial_id, None):
            trial.set_constraint("forgetting", self._excess(finite))
            self._study.tell(trial, [finite[name] for name in self._sweep.objectives])

    def fail(self, trial_id: str, reason: str) -> None:
        """Record a trial that ended without a result."""
        self._journal.append("failed", trial_id=trial_id, reason=reason)
        if trial := self._asked.pop(trial_id, None):
            self._study.tell(trial, state=TrialState.FAIL)

    def prune(self, trial_id: str, reason: str, metrics: Mapping[str, float]) -> None:
        """Record a trial that was stopped early, with what it last reported."""
        self._journal.append("pruned", trial_id=trial_id, reason=reason, metrics=dict(metrics))
        if trial := self._asked.pop(trial_id, None):
            trial.set_constraint(*STOPPED)
            self._study.tell(trial, state=TrialState.PRUNED)

    def _record(self, suggestion: Suggestion) -> Suggestion:
        self._journal.append(
            "suggested",
            trial_id=suggestion.trial_id,
            kind=suggestion.kind,
            params=suggestion.params,
            config=to_dict(suggestion.config),
        )
        return suggestion

    def _again(self, record: TrialRecord) -> Suggestion:
        """The same trial once more: its folder holds the state to resume from."""
        if record.kind == ANCHOR:
            config = apply_preset(self._sweep.base, record.trial_id.removeprefix("anchor-"))
            return Suggestion(record.trial_id, ANCHOR, {}, config)
        self._study.enqueue_trial(record.params)
        self._asked[record.trial_id] = self._study.ask(self._distributions)
        return Suggestion(record.trial_id, SEARCH, dict(record.params), apply(self._sweep, record.params))

    def _ask(self, trial_id: str) -> dict[str, Any]:
        """Parameters that depend on the told trials, the seed and the trial's number only."""
        if self._num_searched == 0 and (first := _base_point(self._sweep)) is not None:
            self._study.enqueue_trial(first)
        self._study.sampler = optuna.samplers.TPESampler(
            multivariate=True,
            constant_liar=True,
            n_startup_trials=8,
            seed=self._seed * 100_003 + self._num_searched,
        )
        trial = self._asked[trial_id] = self._study.ask(self._distributions)
        return dict(trial.params)

    def _frozen(self, record: TrialRecord) -> optuna.trial.FrozenTrial:
        if record.status == "pruned":
            return create_trial(
                state=TrialState.PRUNED,
                params=record.params,
                distributions=self._distributions,
                constraints=dict([STOPPED]),
            )
        if record.status != "told":
            return create_trial(state=TrialState.FAIL, params=record.params, distributions=self._distributions)
        return create_trial(
            values=[record.metrics[name] for name in self._sweep.objectives],
            params=record.params,
            distributions=self._distributions,
            constraints={"forgetting": self._excess(record.metrics)},
        )

    def _excess(self, metrics: Mapping[str, float]) -> float:
        """How far forgetting is above the sweep's limit, in percent; what the sampler sees as its constraint."""
        return metrics["forgetting_rate"] - self._sweep.forgetting_limit


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.values)
    if isinstance(dimension, IntUniform):
        return IntDistribution(dimension.low, dimension.high)
    return FloatDistribution(dimension.low, dimension.high, log=isinstance(dimension, LogUniform))


def _base_point(sweep: Sweep) -> dict[str, Any] | None:
    """The base configuration as a point of the space, or None where it lies outside."""
    values: dict[str, Any] = {}
    for key, dimension in sweep.space.items():
        value: Any = sweep.base
        for part in key.split("."):
            value = getattr(value, part)
        if not contains(dimension, value):
            return None
        values[key] = value
    return values
