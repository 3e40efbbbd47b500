"""What a driver runs: trials from a source, which hears how they ended and writes it into the journal."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sonar.config import to_dict
from sonar.experiment import TrialConfig
from sonar.search.journal import Journal


class Suggestion(NamedTuple):
    """A trial to run: its name in the sweep, its kind (see `TrialRecord`), its parameters and whole configuration."""

    trial_id: str
    kind: str
    params: dict[str, Any]
    config: TrialConfig


class Source(ABC):
    """Gives trials and takes their results; every step is in the journal before it counts."""

    def __init__(self, objectives: Iterable[str], journal: Journal) -> None:
        """Into `journal`; a result needs all `objectives`."""
        self._objectives, self._journal = tuple(objectives), journal
        self._is_resuming = journal.num_found > 0

    @abstractmethod
    def suggest(self) -> Suggestion | None:
        """The next trial, or None once no more are to be launched, for the rest of this driver's life."""

    def tell(self, trial_id: str, metrics: Mapping[str, float], checkpoint: str) -> None:
        """Record a finished trial; one whose objectives are missing or not finite is failed instead."""
        wrong = [
            f"{name} is {metrics[name]}" if name in metrics else f"{name} never arrived"
            for name in self._objectives
            if not math.isfinite(metrics.get(name, math.nan))
        ]
        if wrong:
            self.fail(trial_id, "; ".join(wrong))
            return
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self._journal.append("told", trial_id=trial_id, metrics=finite, checkpoint=checkpoint)

    def fail(self, trial_id: str, reason: str) -> None:
        """Record a trial that ended without a result."""
        self._journal.append("failed", trial_id=trial_id, reason=reason)

    def _begin(self, suggestion: Suggestion, **more: Any) -> Suggestion:
        """Record a trial that is given out for the first time, with the fields that its kind has beside the others."""
        self._mark_resumed()
        self._journal.append("suggested", **suggestion._asdict() | {"config": to_dict(suggestion.config)}, **more)
        return suggestion

    def _mark_resumed(self) -> None:
        """Once, before the first trial that a driver on an older journal gives out; one that gives none leaves none."""
        if self._is_resuming:
            self._journal.append("resumed")
            self._is_resuming = False

    def prune(self, trial_id: str, reason: str, metrics: Mapping[str, float]) -> None:
        """Record a trial that the scheduler stopped, with its last metrics, which are no result."""
        self._journal.append("pruned", trial_id=trial_id, reason=reason, metrics=dict(metrics))
