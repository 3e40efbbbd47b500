"""What a sweep takes from an earlier one: points to try first, and results as evidence; pure.

It is written into the new sweep's journal, which thus stays the only truth: the earlier sweep may go on or be deleted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from sonar.config import ConfigError, to_dict
from sonar.search.journal import SweepState, TrialRecord
from sonar.search.repeats import without_keys
from sonar.search.results import front
from sonar.search.space import Sweep, contains


class WarmStart(NamedTuple):
    """Plain values, as the journal keeps them.

    Attributes:
        front: points of its front that lie in this space, the most plastic first.
        told: parameters and objectives of its told trials in this space; empty where they answer another question.
        note: what was taken and what was not, for people.
    """

    front: list[dict[str, Any]]
    told: list[dict[str, Any]]
    note: str


def take_warm_start(sweep: Sweep, sources: Mapping[str, Any], earlier: SweepState) -> WarmStart:
    """What `sweep` can take from an earlier sweep.

    Results are evidence only where the earlier sweep asked the same question: domain, audio, and a base configuration
    that differs in searched keys at most. Of another one the front alone is taken, to be measured here.

    Args:
        sweep: whose `warm_start` names the earlier one.
        sources: where its audio comes from, as plain values.
        earlier: state of the earlier sweep.

    Raises:
        ConfigError: other objectives or searched keys, or no told trial in this space.
    """
    folder = str(sweep.warm_start)
    _check_question(sweep, earlier, folder)
    told = [r for r in earlier.trials.values() if r.kind == "search" and r.status == "told"]
    inside = [record for record in told if _fits(sweep, record)]
    if not inside:
        raise ConfigError(
            f"warm_start: none of the {len(told)} told trials of {folder} lies in this space; "
            f"widen the space or start without it"
        )
    members = [r for r in front(earlier) if r.record.kind == "search" and _fits(sweep, r.record)]
    points = [dict(r.record.params) for r in sorted(members, key=lambda r: -r.point.plasticity)]
    differs = _differences(sweep, sources, earlier)
    evidence = [] if differs else inside
    note = f"warm start from {folder}: {len(points)} points of its front come first; " + (
        f"its results are not compared, since it had another {', '.join(differs)}"
        if differs
        else f"{len(inside)} of its {len(told)} results are known to the sampler"
    )
    return WarmStart(
        front=points,
        told=[
            {"params": dict(r.params), "metrics": {name: r.metrics[name] for name in sweep.objectives}}
            for r in evidence
        ],
        note=note,
    )


def _check_question(sweep: Sweep, earlier: SweepState, folder: str) -> None:
    objectives = earlier.settings["objectives"]
    if objectives != dict(sweep.objectives):
        raise ConfigError(f"warm_start: {folder} has the objectives {objectives}; this sweep has {sweep.objectives}")
    searched = set(earlier.settings["space"])
    if differing := sorted(searched ^ set(sweep.space)):
        raise ConfigError(
            f"warm_start: {folder} searched other keys ({', '.join(differing)} only on one side); "
            f"search the same keys or start without it"
        )


def _fits(sweep: Sweep, record: TrialRecord) -> bool:
    return all(contains(dimension, record.params[key]) for key, dimension in sweep.space.items())


def _differences(sweep: Sweep, sources: Mapping[str, Any], earlier: SweepState) -> list[str]:
    """In what the earlier sweep asked another question, so that its numbers are not comparable."""
    settings = earlier.settings
    plain = json.loads(json.dumps({"config": to_dict(sweep.base), "sources": sources}))
    pairs = {
        "domain": (settings.get("domain"), sweep.domain),
        "base configuration": (
            without_keys(settings["config"], sweep.space),
            without_keys(plain["config"], sweep.space),
        ),
        "audio": (settings.get("provenance", {}).get("sources"), plain["sources"]),
    }
    return [name for name, (theirs, ours) in pairs.items() if theirs != ours]
