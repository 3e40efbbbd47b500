"""The dimensions of a space, each checked when it is written; pure."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sonar.config import ConfigError

Scalar: TypeAlias = bool | int | float | str | None


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


def extremes(dimension: Dimension) -> tuple[Scalar, ...]:
    """The values that a config must take for it to take all: both bounds, or every choice."""
    return dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high)


def _check_bounds(low: float, high: float, name: str) -> None:
    numbers = all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in (low, high))
    if not numbers or not math.isfinite(low) or not math.isfinite(high) or low >= high:
        raise ConfigError(f"{name}({low!r}, {high!r}): allowed: two finite numbers, the lower one first")
