"""Which configuration comes next, from the journal alone: a resumed sweep asks from the same told trials."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from sonar.experiment import apply_preset
from sonar.search.budget import spent_hours, spent_reason
from sonar.search.first_points import anchor_points, first_points, values_of
from sonar.search.journal import Journal, TrialRecord
from sonar.search.samplers import Observed, Params, Proposer, point_key
from sonar.search.source import Source, Suggestion
from sonar.search.space import Sweep, apply
from sonar.search.warm import WarmStart

ANCHOR, SEARCH = "anchor", "search"


class TrialSource(Source):
    """Gives the trials of one sweep and takes their results; every step is in the journal before it counts.

    Order: trials that an earlier driver began and nobody finished, anchors (the hypervolume's reference point), the
    first points (`first_points`), then what the sampler proposes; no point of the space twice. A trial without finite
    objectives is failed with the reason, and no sampler hears of it.

    Attributes:
        notes: first points that were left out, and what was taken from an earlier sweep.
        end_reason: why `suggest` gave None; None before it did.
    """

    def __init__(self, sweep: Sweep, journal: Journal, seed: int, *, clock: Callable[[], float] = time.time) -> None:
        """Continue from the journal's state; `clock` gives Unix time, for the budget in hours."""
        super().__init__(sweep.objectives, journal)
        self._sweep, self._clock = sweep, clock
        self._began_s = clock()
        self._proposer = Proposer(sweep.sampler, sweep.space, list(sweep.objectives.values()), seed)
        warm = journal.state.settings.get("warm")
        self._warm = WarmStart(**warm) if warm else None
        first = first_points(sweep, self._warm)
        self._first = first.points
        self.notes = ([self._warm.note] if self._warm else []) + first.notes
        self._anchor_points = {name: key for key, name in anchor_points(sweep).items()}
        known = journal.state.trials
        self._unfinished = deque(r for r in known.values() if not r.is_finished and r.kind in (ANCHOR, SEARCH))
        self._anchors = deque(name for name in sweep.anchors if f"anchor-{name}" not in known)
        self.end_reason: str | None = None

    def suggest(self) -> Suggestion | None:
        """The next trial, or None once no more are to be launched, for the rest of this driver's life."""
        if self._unfinished:
            self._mark_resumed()
            return self._again(self._unfinished.popleft())
        if self._anchors:
            name = self._anchors.popleft()
            return self._begin(Suggestion(f"anchor-{name}", ANCHOR, {}, apply_preset(self._sweep.base, name)))
        if self.end_reason is None:
            hours = spent_hours(self._journal.state, self._clock(), self._began_s)
            self.end_reason = spent_reason(self._sweep, self._journal.state, hours)
        params = None if self.end_reason else self._next_point()
        if params is None:
            self.end_reason = self.end_reason or "every point of the space was tried"
            return None
        trial_id = f"trial-{len(self._searched()):03d}"
        return self._begin(Suggestion(trial_id, SEARCH, params, apply(self._sweep, params)))

    def observed(self) -> list[Observed]:
        """All that the sampler may go by: results of an earlier sweep, ended trials in that order, running ones."""
        own = [seen for record in self._ended_first() if (seen := self._observe(record))]
        measured = {point_key(seen.params) for seen in own}
        warm = [
            self._told(told["params"], told["metrics"])
            for told in (self._warm.told if self._warm else ())
            if point_key(told["params"]) not in measured
        ]
        return warm + own

    def _searched(self) -> list[TrialRecord]:
        return [record for record in self._journal.state.trials.values() if record.kind == SEARCH]

    def _next_point(self) -> dict[str, Any] | None:
        searched = self._searched()
        taken = {point_key(record.params) for record in searched} | set(self._anchor_points.values())
        for point in self._first:
            if point_key(point) not in taken:
                return dict(point)
        return self._proposer.propose(self.observed(), taken, len(searched))

    def _ended_first(self) -> list[TrialRecord]:
        records = self._journal.state.trials.values()
        ended = sorted((r for r in records if r.is_finished), key=lambda record: record.ended_s or 0.0)
        return ended + [record for record in records if not record.is_finished]

    def _observe(self, record: TrialRecord) -> Observed | None:
        """A trial as the sampler sees it; None for a failed one, and for an anchor that is no point of the space."""
        params: Params = record.params
        if record.kind == ANCHOR and (name := record.trial_id.removeprefix("anchor-")) in self._anchor_points:
            params = values_of(apply_preset(self._sweep.base, name), self._sweep)
        elif record.kind != SEARCH:
            return None
        if record.status == "told":
            return self._told(params, record.metrics)
        if record.status == "pruned":
            return Observed(params, "pruned")
        return None if record.is_finished else Observed(params, "running")

    def _told(self, params: Params, metrics: Mapping[str, float]) -> Observed:
        values = tuple(metrics[name] for name in self._sweep.objectives)
        return Observed(params, "told", values, metrics["forgetting_rate"] - self._sweep.forgetting_limit)

    def _again(self, record: TrialRecord) -> Suggestion:
        """The same trial once more: its folder holds the state to resume from."""
        if record.kind == ANCHOR:
            config = apply_preset(self._sweep.base, record.trial_id.removeprefix("anchor-"))
            return Suggestion(record.trial_id, ANCHOR, {}, config)
        return Suggestion(record.trial_id, SEARCH, dict(record.params), apply(self._sweep, record.params))
