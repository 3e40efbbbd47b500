"""The points that a sweep tries before its sampler is asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from sonar.experiment import TrialConfig, apply_preset
from sonar.search.samplers import Params, point_key
from sonar.search.space import Sweep, apply, contains
from sonar.search.warm import WarmStart


class FirstPoints(NamedTuple):
    """Different points of the space in the order in which they are tried, and what was left out and why."""

    points: list[Params]
    notes: list[str]


def first_points(sweep: Sweep, warm: WarmStart | None) -> FirstPoints:
    """The paper's values of the searched keys, the base configuration, then an earlier sweep's front.

    A point outside the space is left out with a note; one that an anchor runs already, or that came before, silently.
    """
    seen = set(anchor_points(sweep))
    points: list[Params] = []
    notes: list[str] = []
    for origin, values in _candidates(sweep, warm):
        outside = [f"{key} is {value}" for key, value in values.items() if not contains(sweep.space[key], value)]
        if outside:
            notes.append(f"{origin} is no point of this space ({', '.join(outside)}) and is not tried")
        elif point_key(values) not in seen:
            seen.add(point_key(values))
            points.append(values)
    return FirstPoints(points, notes)


def anchor_points(sweep: Sweep) -> dict[str, str]:
    """Name of the anchor by `point_key`, for every anchor that is a point of the space in all that it changes."""
    found = {}
    for name in sweep.anchors:
        config = apply_preset(sweep.base, name)
        values = values_of(config, sweep)
        inside = all(contains(sweep.space[key], value) for key, value in values.items())
        if inside and apply(sweep, values) == config:
            found[point_key(values)] = name
    return found


def values_of(config: TrialConfig, sweep: Sweep) -> dict[str, Any]:
    """The values of the searched keys in a configuration."""
    values = {}
    for key in sweep.space:
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        values[key] = value
    return values


def _candidates(sweep: Sweep, warm: WarmStart | None) -> Iterator[tuple[str, Params]]:
    yield "the paper's preset", values_of(apply_preset(sweep.base, "sonar-paper"), sweep)
    yield "the base configuration", values_of(sweep.base, sweep)
    for params in warm.front if warm else ():
        yield "a point of the earlier front", params
