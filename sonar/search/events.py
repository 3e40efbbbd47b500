"""The events of a journal: their fields, and what an event alone must keep to; pure."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

OF_A_SWEEP = frozenset({"name", "domain", "num_trials", "anchors", "forgetting_limit", "provenance", "options"}) | {
    *("sampler", "budget_hours", "converge", "warm_start", "warm", "halving", "audit_seeds")
}

# Required fields of each event, then those that may be there.
EVENT_FIELDS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "sweep_created": (
        frozenset({"config", "space", "objectives", "seed"}),
        OF_A_SWEEP,
    ),
    "sweep_changed": (frozenset(), OF_A_SWEEP),
    "resumed": (frozenset(), frozenset()),
    "ended": (frozenset({"reason"}), frozenset()),
    "suggested": (frozenset({"trial_id", "kind", "params"}), frozenset({"name", "config", "of", "seed"})),
    "started": (frozenset({"trial_id"}), frozenset({"host"})),
    "reported": (frozenset({"trial_id", "step", "metrics"}), frozenset()),
    "checkpointed": (frozenset({"trial_id", "step", "checkpoint"}), frozenset()),
    "candidate": (frozenset({"trial_id", "step", "alpha", "metrics", "checkpoint"}), frozenset()),
    "discarded": (frozenset({"trial_id", "step", "alpha", "reason"}), frozenset()),
    "paused": (frozenset({"trial_id", "reason"}), frozenset()),
    "told": (frozenset({"trial_id", "metrics", "checkpoint"}), frozenset()),
    "failed": (frozenset({"trial_id", "reason"}), frozenset({"metrics"})),
    "pruned": (frozenset({"trial_id", "reason"}), frozenset({"metrics"})),
}


class JournalError(RuntimeError):
    """An event that contradicts the journal, or a journal that cannot be written."""


class Event(NamedTuple):
    """One line of a journal: its place, Unix time in seconds, what happened and its values."""

    seq: int
    time_s: float
    event: str
    data: dict[str, Any]


def check_fields(event: str, data: Mapping[str, Any]) -> None:
    """Raise JournalError unless the event is known and has the fields that it must have, and no others."""
    if event not in EVENT_FIELDS:
        raise JournalError(f"unknown event {event!r}; known: {', '.join(EVENT_FIELDS)}")
    required, optional = EVENT_FIELDS[event]
    if missing := sorted(required - data.keys()):
        raise JournalError(f"{event}: not given: {', '.join(missing)}")
    if unknown := sorted(data.keys() - required - optional):
        raise JournalError(f"{event}: unknown: {', '.join(unknown)}; allowed: {', '.join(required | optional)}")


def check_finite(event: Event, objectives: Iterable[str]) -> None:
    """Raise ValueError unless every metric is a finite number and every objective is among them."""
    trial_id, metrics = event.data["trial_id"], event.data["metrics"]
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{event.event}: trial {trial_id!r}: {name} is {value!r}; allowed: a finite number")
    if missing := [name for name in objectives if name not in metrics]:
        lacks = f"{event.event}: trial {trial_id!r} lacks the objective {', '.join(missing)}"
        raise ValueError(f"{lacks}; fail it instead" if event.event == "told" else lacks)
