"""A sweep: which dotted config keys vary, over which dimensions, and how; checked when it is written."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from sonar.config import ConfigError, dotted_keys, nearest_key, override
from sonar.evaluate.run_folders import SEED_KEYS
from sonar.search.convergence import Convergence
from sonar.search.dimensions import (
    Choice,
    Dimension,
    IntUniform,
    LogUniform,
    Uniform,
    choice,
    contains,
    describe_space,
    extremes,
    int_uniform,
    log_uniform,
    num_points,
    read_space,
    uniform,
)
from sonar.search.dominance import Direction
from sonar.search.halving import NO_POINTS, HalvingConfig

if TYPE_CHECKING:
    from sonar.experiment import TrialConfig

__all__ = [  # with what a script needs to write a sweep
    "SONAR_SPACE", "Choice", "Dimension", "IntUniform", "LogUniform", "SamplerName", "Sweep", "Uniform", "apply",
    "choice", "contains", "describe_space", "int_uniform", "log_uniform", "num_points", "read_space", "uniform",
]  # fmt: skip

SamplerName: TypeAlias = Literal["tpe", "nsga2", "nsga3", "gp", "random"]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One question to a domain: what is varied around which config, and what counts as better.

    Attributes:
        domain: the new domain, for example "bio".
        base: the config that every trial starts from.
        space: dimension by dotted key of the config.
        objectives: "max" or "min" by the name of the metric.
        num_trials: trials to search, anchors not counted.
        forgetting_limit: highest forgetting rate of a pick, percent.
        anchors: presets that run first; they fix the axes and the reference point of the hypervolume.
        halving: when a trial is stopped early; None: all run to their end. It needs `evaluation.every`.
        name: the sweep's own name; the domain where none is given. Names a folder, an experiment and a study.
        sampler: of the points after the first ones, by its name in Optuna.
        budget_hours: no trial is launched once the sweep has run this long, over all its drivers; None: no limit.
        converge: no trial is launched once the hypervolume has come to rest; None: whatever it does.
        warm_start: folder of an earlier sweep to begin from.
        audit_seeds: runs of the base configuration under further seeds, before anything is searched; 0: no audit.
    """

    domain: str
    base: "TrialConfig"
    space: Mapping[str, Dimension]
    objectives: Mapping[str, Direction]
    num_trials: int
    forgetting_limit: float = 5.0
    anchors: tuple[str, ...] = ("base", "dcpt")
    halving: HalvingConfig | None = None
    name: str = ""
    sampler: SamplerName = "tpe"
    budget_hours: float | None = None
    converge: Convergence | None = None
    warm_start: str | None = None
    audit_seeds: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "space", dict(self.space))
        object.__setattr__(self, "objectives", dict(self.objectives))
        object.__setattr__(self, "name", self.name or self.domain)
        _check_scalars(self)
        _check_search(self)
        _check_space(self)

    @property
    def num_runs(self) -> int:
        """Trials that it runs in all, anchors and the audit's among them."""
        return self.num_trials + len(self.anchors) + self.audit_seeds


def apply(sweep: Sweep, params: Mapping[str, Any]) -> "TrialConfig":
    """The config of one trial.

    Args:
        sweep: whose base is changed.
        params: one value inside its dimension for every key of the space, no more and no less.

    Raises:
        ConfigError: a missing or unknown key, or a value outside its dimension.
    """
    unknown = [key for key in params if key not in sweep.space]
    if unknown:
        raise ConfigError(f"unknown parameter {unknown[0]!r}; {nearest_key(unknown[0], sweep.space)}")
    missing = [key for key in sweep.space if key not in params]
    if missing:
        raise ConfigError(f"parameters not given: {', '.join(missing)}; every key of the space is needed")
    for key, value in params.items():
        if not contains(sweep.space[key], value):
            raise ConfigError(f"{key}: got {value!r}; allowed: {sweep.space[key]}")
    return override(sweep.base, params)


def _check_scalars(sweep: Sweep) -> None:
    for field in ("domain", "name"):
        value = getattr(sweep, field)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", value):
            raise ConfigError(f"{field}: got {value!r}; allowed: letters, digits, dots, dashes and underscores")
    if type(sweep.num_trials) is not int or sweep.num_trials < 1:
        raise ConfigError(f"num_trials: got {sweep.num_trials!r}; allowed: 1 or more")
    if not math.isfinite(sweep.forgetting_limit):
        raise ConfigError(f"forgetting_limit: got {sweep.forgetting_limit!r}; allowed: a finite number, percent")
    wrong = {name: way for name, way in sweep.objectives.items() if way not in ("max", "min")}
    if wrong or not sweep.objectives:
        raise ConfigError(f"objectives: got {sweep.objectives!r}; allowed: 'max' or 'min' for each metric")


def _check_search(sweep: Sweep) -> None:
    """How the search goes on and ends."""
    if sweep.sampler not in get_args(SamplerName):
        raise ConfigError(f"sampler: got {sweep.sampler!r}; allowed: {', '.join(get_args(SamplerName))}")
    if sweep.budget_hours is not None and not 0 < sweep.budget_hours < math.inf:
        raise ConfigError(f"budget_hours: got {sweep.budget_hours!r}; allowed: a number of hours above 0")
    if type(sweep.audit_seeds) is not int or sweep.audit_seeds < 0 or sweep.audit_seeds == 1:
        raise ConfigError(f"audit_seeds: got {sweep.audit_seeds!r}; allowed: 0 for no audit, or 2 or more, better 5")
    if sweep.halving is not None and not sweep.base.evaluation.every:
        raise ConfigError(f"halving: {NO_POINTS}")


def _check_space(sweep: Sweep) -> None:
    """Every key must be in the config, and every bound or choice must be a value that the config takes."""
    if not sweep.space:
        raise ConfigError("space: it is empty; give at least one dimension, or run a single trial")
    valid = dotted_keys(type(sweep.base))
    for key, dimension in sweep.space.items():
        if key not in valid:
            raise ConfigError(f"space: unknown key {key!r}; {nearest_key(key, valid)}")
        if key in SEED_KEYS:
            raise ConfigError(f"space: {key!r} is no parameter: trials are compared under the same draws; leave it out")
        for value in extremes(dimension):
            try:
                override(sweep.base, {key: value})
            except ConfigError as error:
                raise ConfigError(f"space: {key!r} cannot be {value!r}: {error}") from error


SONAR_SPACE: Mapping[str, Dimension] = {
    "sampling.replay_ratio": uniform(0.1, 0.7),
    "distill.tokenizer_weight": log_uniform(1e2, 1e6),
    "distill.model_weight": log_uniform(1e-1, 1e2),
    "codebook.usage_decay": uniform(0.9, 0.999),
    "codebook.revive_scale": log_uniform(1.0, 30.0),
}
"""What the paper leaves open or a domain may want otherwise: replay, both distillations, codebook thresholds.

Ranges: docs/method.md, inferred."""
