"""Ways to search, as benches compare them: a sweep of ours, and Optuna as Ray Tune's OptunaSearch uses it."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from simulation import Asked
from surface import Values

from sonar.config import to_dict
from sonar.evaluate.curve import CurvePoint, summarise_curve
from sonar.search.halving import GO_ON, Decision, FrontHalving, HalvingConfig
from sonar.search.journal import Journal
from sonar.search.searcher import SEARCH, TrialSource
from sonar.search.space import SONAR_SPACE, LogUniform, Sweep, Uniform, describe_space

ENDLESS = 10_000  # trials; the budget is of compute


class PlainOptuna:
    """Ray Tune with OptunaSearch and no scheduler: ask, run to the end, tell."""

    def __init__(self, sampler: optuna.samplers.BaseSampler) -> None:
        self._study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)

    def ask(self) -> Asked:
        """As `Search`."""
        trial = self._study.ask()
        return Asked(trial.number, {key: _suggest(trial, key) for key in SONAR_SPACE}, None, trial)

    def on_point(self, trial: Asked, step: int, values: Values) -> Decision:
        """Every trial goes on."""
        return GO_ON

    def tell(self, trial: Asked, curve: Sequence[tuple[int, Values]]) -> None:
        """The last point is the result."""
        self._study.tell(trial.handle, list(curve[-1][1]))

    def stop(self, trial: Asked, reason: str) -> None:
        """It never is."""
        raise AssertionError("nothing stops it")


def _suggest(trial: optuna.Trial, key: str) -> float:
    dimension = SONAR_SPACE[key]
    assert isinstance(dimension, Uniform | LogUniform)
    return trial.suggest_float(key, dimension.low, dimension.high, log=isinstance(dimension, LogUniform))


class Ours:
    """TrialSource over a journal, and FrontHalving; None: every trial runs to its end."""

    def __init__(self, journal: Journal, sweep: Sweep, seed: int, config: HalvingConfig | None = None) -> None:
        journal.append(
            "sweep_created",
            config=to_dict(sweep.base),
            space=describe_space(sweep.space),
            objectives=dict(sweep.objectives),
            seed=seed,
        )
        self._journal, self._source, self._number = journal, TrialSource(sweep, journal, seed), -1
        every, limit = sweep.base.evaluation.every, sweep.forgetting_limit
        self._halving = FrontHalving(config, every=every, forgetting_limit=limit) if config else None

    def ask(self) -> Asked:
        """As `Search`."""
        suggestion = self._source.suggest()
        assert suggestion is not None
        self._journal.append("started", trial_id=suggestion.trial_id)
        self._number += 1
        anchor = None if suggestion.kind == SEARCH else suggestion.trial_id.removeprefix("anchor-")
        return Asked(self._number, suggestion.params, anchor, suggestion.trial_id)

    def on_point(self, trial: Asked, step: int, values: Values) -> Decision:
        """What halving says."""
        if self._halving is None:
            return GO_ON
        return self._halving.on_point(trial.handle, step, *values, may_stop=trial.anchor is None)

    def tell(self, trial: Asked, curve: Sequence[tuple[int, Values]]) -> None:
        """The last point is the result; what the curve says goes with it."""
        plasticity, forgetting = curve[-1][1]
        metrics = {"plasticity": plasticity, "forgetting_rate": forgetting, "forgetting_worst": forgetting}
        if len(curve) > 1:
            points = [CurvePoint("model", step, *values, values.forgetting, {}) for step, values in curve]
            summary = summarise_curve(points)._asdict()
            metrics |= {f"curve/{name}": float(value) for name, value in summary.items()}
        self._source.tell(trial.handle, metrics, "")
        if self._halving:
            self._halving.on_told(metrics)

    def stop(self, trial: Asked, reason: str) -> None:
        """The sampler hears that it was pruned."""
        self._source.prune(trial.handle, reason, {})
