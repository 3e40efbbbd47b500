"""What a sweep varies: dimensions over dotted config keys, checked when the sweep is written."""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from sonar.config import ConfigError, dotted_keys, nearest_key, override
from sonar.evaluate.run_folders import SEED_KEYS
from sonar.search.convergence import Convergence
from sonar.search.dominance import Direction
from sonar.search.halving import NO_POINTS, HalvingConfig

if TYPE_CHECKING:
    from sonar.experiment import TrialConfig

Scalar: TypeAlias = bool | int | float | str | None
SamplerName: TypeAlias = Literal["tpe", "nsga2", "nsga3", "gp", "random"]


@dataclass(frozen=True)
class Uniform:
    """A number between two bounds, both included, evenly spread."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high, "uniform")


@dataclass(frozen=True)
class LogUniform:
    """A positive number between two bounds, both included, its logarithm evenly spread."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high, "log_uniform")
        if self.low <= 0:
            raise ConfigError(f"log_uniform({self.low}, {self.high}): allowed: bounds above zero")


@dataclass(frozen=True)
class IntUniform:
    """A whole number between two bounds, both included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high, "int_uniform")
        if not (type(self.low) is int and type(self.high) is int):
            raise ConfigError(f"int_uniform({self.low!r}, {self.high!r}): allowed: whole numbers")


@dataclass(frozen=True)
class Choice:
    """One of some plain values, without order."""

    values: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        if any(not isinstance(value, bool | int | float | str | None) for value in self.values):
            raise ConfigError(f"choice{self.values!r}: allowed: booleans, numbers, text and None")
        different = {(type(value), value) for value in self.values}
        if len(self.values) < 2 or len(different) < len(self.values):
            raise ConfigError(f"choice{self.values!r}: allowed: two or more different values")


Dimension: TypeAlias = Uniform | LogUniform | IntUniform | Choice


def uniform(low: float, high: float) -> Uniform:
    """A number between `low` and `high`, evenly spread."""
    return Uniform(low, high)


def log_uniform(low: float, high: float) -> LogUniform:
    """A positive number between `low` and `high`, evenly spread over its orders of magnitude."""
    return LogUniform(low, high)


def int_uniform(low: int, high: int) -> IntUniform:
    """A whole number from `low` to `high`."""
    return IntUniform(low, high)


def choice(*values: Scalar) -> Choice:
    """One of these values."""
    return Choice(values)


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


def contains(dimension: Dimension, value: Any) -> bool:
    """Whether a dimension can take a value; a bool is no number."""
    if isinstance(dimension, Choice):
        return any(type(value) is type(allowed) and value == allowed for allowed in dimension.values)
    numbers = int if isinstance(dimension, IntUniform) else (int, float)
    return not isinstance(value, bool) and isinstance(value, numbers) and dimension.low <= value <= dimension.high


def num_points(space: Mapping[str, Dimension]) -> float:
    """How many different points a space has; infinity where a dimension is continuous."""
    sizes = [
        len(dim.values)
        if isinstance(dim, Choice)
        else dim.high - dim.low + 1
        if isinstance(dim, IntUniform)
        else math.inf
        for dim in space.values()
    ]
    return math.prod(sizes)


def describe_space(space: Mapping[str, Dimension]) -> dict[str, dict[str, Any]]:
    """The space as plain values for the journal: {"a.b": {"type": "Uniform", "low": 0.1, "high": 0.7}}."""
    return {key: {"type": type(dim).__name__, **dataclasses.asdict(dim)} for key, dim in space.items()}


def read_space(described: Mapping[str, Mapping[str, Any]]) -> dict[str, Dimension]:
    """The space that `describe_space` described, also after JSON.

    Raises:
        ConfigError: a kind of dimension that there is not.
    """
    kinds: dict[str, Any] = {kind.__name__: kind for kind in (Uniform, LogUniform, IntUniform, Choice)}
    space = {}
    for key, fields in described.items():
        kind, values = fields["type"], {name: value for name, value in fields.items() if name != "type"}
        if kind not in kinds:
            raise ConfigError(f"space: {key!r} is a {kind!r}; there are {', '.join(kinds)}")
        space[key] = kinds[kind](**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})
    return space


def _check_bounds(low: float, high: float, name: str) -> None:
    numbers = all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in (low, high))
    if not numbers or not math.isfinite(low) or not math.isfinite(high) or low >= high:
        raise ConfigError(f"{name}({low!r}, {high!r}): allowed: two finite numbers, the lower one first")


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
        for value in _extremes(dimension):
            try:
                override(sweep.base, {key: value})
            except ConfigError as error:
                raise ConfigError(f"space: {key!r} cannot be {value!r}: {error}") from error


def _extremes(dimension: Dimension) -> tuple[Scalar, ...]:
    return dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high)


SONAR_SPACE: Mapping[str, Dimension] = {
    "sampling.replay_ratio": uniform(0.1, 0.7),
    "distill.tokenizer_weight": log_uniform(1e2, 1e6),
    "distill.model_weight": log_uniform(1e-1, 1e2),
    "codebook.usage_decay": uniform(0.9, 0.999),
    "codebook.revive_scale": log_uniform(1.0, 30.0),
}
"""What the paper leaves open or a domain may want otherwise: replay, both distillations, codebook thresholds.

Ranges: docs/method.md, inferred."""
