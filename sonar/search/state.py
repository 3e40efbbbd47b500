"""What a journal's events mean: the state of a sweep and of each of its trials; pure."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

KINDS = ("anchor", "search")
FINISHED = ("told", "failed", "pruned")

# Required fields of each event, then those that may be there.
EVENT_FIELDS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "sweep_created": (
        frozenset({"config", "space", "objectives", "seed"}),
        frozenset({"name", "domain", "num_trials", "anchors", "forgetting_limit", "halving", "provenance"}),
    ),
    "suggested": (frozenset({"trial_id", "kind", "params"}), frozenset({"name", "config"})),
    "started": (frozenset({"trial_id"}), frozenset({"host"})),
    "reported": (frozenset({"trial_id", "step", "metrics"}), frozenset()),
    "checkpointed": (frozenset({"trial_id", "step", "checkpoint"}), frozenset()),
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


class Report(NamedTuple):
    """Metrics of a running trial; unlike those of a finished one they may be NaN or infinite."""

    step: int
    time_s: float
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """What the journal knows of one trial.

    Attributes:
        trial_id: unique in the sweep.
        kind: "anchor" or "search".
        name: for people; the id where none was given.
        params: the suggested point of the space; empty for an anchor.
        config: the whole of the trial's config as plain values, where it was recorded.
        status: the last of suggested, started, told, failed, pruned.
        metrics: finite; only a told trial has them.
        reports: while it ran, in the order in which they came.
        reason: why it failed or was pruned.
        checkpoint: folder of its last checkpoint, None where there is none.
        num_starts: 2 or more for a trial that was resumed.
        started_s: Unix time of its first start.
        ended_s: Unix time of its end.
    """

    trial_id: str
    kind: str
    name: str
    params: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    status: str = "suggested"
    metrics: dict[str, float] = field(default_factory=dict)
    reports: tuple[Report, ...] = ()
    reason: str | None = None
    checkpoint: str | None = None
    num_starts: int = 0
    started_s: float | None = None
    ended_s: float | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the trial has ended, well or not."""
        return self.status in FINISHED


@dataclass
class SweepState:
    """A sweep as its journal tells it; `settings` are the values of `sweep_created`, empty before it."""

    settings: dict[str, Any] = field(default_factory=dict)
    created_s: float | None = None
    trials: dict[str, TrialRecord] = field(default_factory=dict)

    def apply(self, event: Event) -> None:
        """Take one event into the state, or leave the state as it was.

        Raises:
            JournalError: the event is unknown or contradicts what came before.
            ValueError: a told metric that is missing or not finite.
        """
        record = self.check(event)
        if record is None:
            self.settings, self.created_s = dict(event.data), event.time_s
        else:
            self.trials[record.trial_id] = record

    def check(self, event: Event) -> TrialRecord | None:
        """The record that an event leads to, None for `sweep_created`; nothing changes. Raises as `apply`."""
        check_fields(event.event, event.data)
        if event.event == "sweep_created":
            if self.settings:
                raise JournalError("sweep_created: this journal already belongs to a sweep")
            return None
        if not self.settings:
            raise JournalError(f"{event.event}: the first event must be sweep_created")
        return self._next_record(event)

    def _next_record(self, event: Event) -> TrialRecord:
        trial_id = event.data["trial_id"]
        known = self.trials.get(trial_id)
        if event.event == "suggested":
            if known is not None:
                raise JournalError(f"suggested: trial {trial_id!r} was already suggested")
            return _suggested(event)
        if known is None:
            raise JournalError(f"{event.event}: trial {trial_id!r} was never suggested")
        if known.is_finished:
            raise JournalError(f"{event.event}: trial {trial_id!r} has already ended ({known.status})")
        if event.event == "told":
            check_told(event.data["metrics"], self.settings["objectives"], trial_id)
        return _advance(known, event)


def replay(events: Iterable[Event]) -> SweepState:
    """The state after all events.

    Raises:
        JournalError: an event that contradicts an earlier one, such as a second `told` for a trial.
        ValueError: a told metric that is missing or not finite.
    """
    state = SweepState()
    for event in events:
        state.apply(event)
    return state


def check_fields(event: str, data: Mapping[str, Any]) -> None:
    """Raise JournalError unless the event is known and has the fields that it must have, and no others."""
    if event not in EVENT_FIELDS:
        raise JournalError(f"unknown event {event!r}; known: {', '.join(EVENT_FIELDS)}")
    required, optional = EVENT_FIELDS[event]
    if missing := sorted(required - data.keys()):
        raise JournalError(f"{event}: not given: {', '.join(missing)}")
    if unknown := sorted(data.keys() - required - optional):
        raise JournalError(f"{event}: unknown: {', '.join(unknown)}; allowed: {', '.join(required | optional)}")


def check_told(metrics: Mapping[str, float], objectives: Iterable[str], trial_id: str) -> None:
    """Raise ValueError unless every metric is a finite number and every objective is among them."""
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"told: trial {trial_id!r}: {name} is {value!r}; allowed: a finite number")
    if missing := [name for name in objectives if name not in metrics]:
        raise ValueError(f"told: trial {trial_id!r} lacks the objective {', '.join(missing)}; fail it instead")


def _suggested(event: Event) -> TrialRecord:
    data = event.data
    if data["kind"] not in KINDS:
        raise JournalError(f"suggested: kind is {data['kind']!r}; allowed: {', '.join(KINDS)}")
    return TrialRecord(
        trial_id=data["trial_id"],
        kind=data["kind"],
        name=data.get("name", data["trial_id"]),
        params=data["params"],
        config=data.get("config", {}),
    )


def _advance(record: TrialRecord, event: Event) -> TrialRecord:
    data, now = event.data, event.time_s
    if event.event == "started":
        first = now if record.started_s is None else record.started_s
        return replace(record, status="started", num_starts=record.num_starts + 1, started_s=first)
    if event.event == "reported":
        report = Report(data["step"], now, {name: float(value) for name, value in data["metrics"].items()})
        return replace(record, reports=(*record.reports, report))
    if event.event == "checkpointed":
        return replace(record, checkpoint=data["checkpoint"])
    if event.event == "told":
        metrics = {name: float(value) for name, value in data["metrics"].items()}
        checkpoint = data["checkpoint"] or record.checkpoint
        return replace(record, status="told", metrics=metrics, checkpoint=checkpoint, ended_s=now)
    return replace(record, status=event.event, reason=data["reason"], ended_s=now)
