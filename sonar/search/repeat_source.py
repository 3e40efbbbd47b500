"""A source of trials that repeat what a sweep has: the same configuration under another seed, each exactly once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from sonar.config import from_dict
from sonar.experiment import TrialConfig
from sonar.search.journal import Journal
from sonar.search.repeats import AUDIT, REEVAL, Repeat
from sonar.search.source import Source, Suggestion


class RepeatSource(Source):
    """First the repeats that an earlier driver began and nobody finished, then what `choose` asks for."""

    def __init__(self, journal: Journal, kind: str, choose: Callable[[], Repeat | None]) -> None:
        """Of one kind, "audit" or "reeval"; `choose` gives the next repeat or None where there is to be none."""
        super().__init__(journal.state.settings["objectives"], journal)
        self._choose = choose
        known = journal.state.trials.values()
        self._unfinished = deque(record for record in known if record.kind == kind and not record.is_finished)

    def suggest(self) -> Suggestion | None:
        """The next repeat, or None once no more are to be launched."""
        if self._unfinished:
            self._mark_resumed()
            record = self._unfinished.popleft()
            return Suggestion(record.trial_id, record.kind, {}, from_dict(TrialConfig, record.config))
        repeat = self._choose()
        if repeat is None:
            return None
        kind, of = (AUDIT, {}) if repeat.of is None else (REEVAL, {"of": repeat.of})
        return self._begin(Suggestion(repeat.trial_id, kind, {}, repeat.config), seed=repeat.seed, **of)
