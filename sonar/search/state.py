"""What a journal's events mean: the state of a sweep and of each of its trials; pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sonar.search.events import Event, JournalError, check_fields, check_finite
from sonar.search.records import KINDS, CandidateKey, CandidateRecord, Report, TrialRecord


@dataclass
class SweepState:
    """A sweep as its journal tells it.

    Attributes:
        settings: the values of `sweep_created`, as changed since; empty before it.
        created_s: Unix time of `sweep_created`.
        trials: by id, in the order in which they were suggested.
        candidates: of all trials, in the order in which they came; what a trial was told with is one of them.
        end_reason: why the last driver launched no more trials; None while one may be at work.
        last_s: Unix time of the last event.
        spent_s: how long drivers have been at work: the time between events, but for what lies before `resumed`.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    created_s: float | None = None
    trials: dict[str, TrialRecord] = field(default_factory=dict)
    candidates: dict[CandidateKey, CandidateRecord] = field(default_factory=dict)
    end_reason: str | None = None
    last_s: float | None = None
    spent_s: float = 0.0

    def __post_init__(self) -> None:
        """What the given trials were told with are candidates."""
        told = [_told_candidate(record) for record in self.trials.values() if record.status == "told"]
        self.candidates = {candidate.key: candidate for candidate in told} | self.candidates

    def apply(self, event: Event) -> None:
        """Take one event into the state, or leave the state as it was.

        Raises:
            JournalError: the event is unknown or contradicts what came before.
            ValueError: a told metric that is missing or not finite.
        """
        record = self.check(event)
        if record is not None:
            self.trials[record.trial_id] = record
            if event.event in ("candidate", "discarded"):
                self._set(self._next_candidate(event))
            elif event.event == "told":
                self._set(_told_candidate(record))
        elif event.event in ("sweep_created", "sweep_changed"):
            self.settings = {**self.settings, **event.data}
            self.created_s = event.time_s if self.created_s is None else self.created_s
        else:
            self.end_reason = event.data.get("reason")
        if self.last_s is not None and event.event != "resumed":
            self.spent_s += max(0.0, event.time_s - self.last_s)
        self.last_s = event.time_s

    def _set(self, candidate: CandidateRecord) -> None:
        self.candidates[candidate.key] = candidate

    def without(self, trial_ids: Collection[str]) -> "SweepState":
        """The state as if these trials had never been."""
        return replace(
            self,
            trials={trial_id: record for trial_id, record in self.trials.items() if trial_id not in trial_ids},
            candidates={key: record for key, record in self.candidates.items() if key.trial_id not in trial_ids},
        )

    def check(self, event: Event) -> TrialRecord | None:
        """The record that an event leads to, None for one of the whole sweep; nothing changes. Raises as `apply`."""
        check_fields(event.event, event.data)
        if event.event == "sweep_created":
            if self.settings:
                raise JournalError("sweep_created: this journal already belongs to a sweep")
            return None
        if not self.settings:
            raise JournalError(f"{event.event}: the first event must be sweep_created")
        return self._next_record(event) if "trial_id" in event.data else None

    def _next_record(self, event: Event) -> TrialRecord:
        trial_id = event.data["trial_id"]
        known = self.trials.get(trial_id)
        if event.event == "suggested":
            if known is not None:
                raise JournalError(f"suggested: trial {trial_id!r} was already suggested")
            return _suggested(event)
        if known is None:
            raise JournalError(f"{event.event}: trial {trial_id!r} was never suggested")
        if event.event in ("candidate", "discarded"):
            self._next_candidate(event)
        if event.event == "discarded":  # also of a trial that has ended, when a later one is better
            return known
        if known.is_finished:
            raise JournalError(f"{event.event}: trial {trial_id!r} has already ended ({known.status})")
        if event.event == "told":
            check_finite(event, self.settings["objectives"])
        return _advance(known, event)

    def _next_candidate(self, event: Event) -> CandidateRecord:
        """What a `candidate` or `discarded` leads to."""
        data = event.data
        key = CandidateKey(data["trial_id"], int(data["step"]), float(data["alpha"]))
        known = self.candidates.get(key)
        if event.event == "candidate":
            if known is not None:
                raise JournalError(f"candidate: {_name(key)} is there already")
            if not 0.0 <= key.alpha <= 1.0:
                raise JournalError(f"candidate: {_name(key)}: alpha must lie in [0, 1]")
            check_finite(event, self.settings["objectives"])
            return CandidateRecord(key, _floats(data["metrics"]), data["checkpoint"])
        if known is None or known.discarded is not None:
            raise JournalError(f"discarded: {_name(key)} is no candidate{'' if known is None else ' any more'}")
        return known._replace(discarded=data["reason"])


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


def _told_candidate(record: TrialRecord) -> CandidateRecord:
    assert record.last_step is not None
    return CandidateRecord(CandidateKey(record.trial_id, record.last_step, 1.0), record.metrics, record.checkpoint)


def _floats(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def _name(key: CandidateKey) -> str:
    return f"step {key.step} of trial {key.trial_id!r} at alpha {key.alpha:g}"


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
        of=data.get("of"),
        seed=data.get("seed"),
    )


def _advance(record: TrialRecord, event: Event) -> TrialRecord:
    data, now = event.data, event.time_s
    if event.event == "started":
        first = now if record.started_s is None else record.started_s
        return replace(record, status="started", reason=None, num_starts=record.num_starts + 1, started_s=first)
    if event.event == "reported":
        report = Report(data["step"], now, _floats(data["metrics"]))
        return replace(record, reports=(*record.reports, report))
    if event.event == "checkpointed":
        return replace(record, checkpoint=data["checkpoint"])
    if event.event == "told":
        checkpoint = data["checkpoint"] or record.checkpoint
        return replace(record, status="told", metrics=_floats(data["metrics"]), checkpoint=checkpoint, ended_s=now)
    if event.event == "candidate":
        return record
    if event.event == "paused":
        return replace(record, status="paused", reason=data["reason"])
    return replace(record, status=event.event, reason=data["reason"], ended_s=now)
