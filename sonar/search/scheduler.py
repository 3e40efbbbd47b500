"""Early stopping on Tune: `FrontHalving` behind Tune's scheduler interface, rebuilt from the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from sonar.config import from_dict
from sonar.search.events import Event
from sonar.search.halving import FrontHalving, HalvingConfig
from sonar.search.journal import Journal, read_journal
from sonar.search.trainable import CHECKPOINT, ENDED

SEARCHED = "search"  # the kind of trial that may be stopped
Numbers = Callable[[dict[str, Any]], dict[str, float]]


class HalvingScheduler(FIFOScheduler):
    """Trials in the order in which they are suggested; those that halving gives up are stopped."""

    def __init__(self, halving: FrontHalving, journal: Journal, numbers: Numbers) -> None:
        """Decide by `halving`; `numbers` finds our metrics among what Tune puts beside them."""
        super().__init__()  # type: ignore[no-untyped-call]  # of Ray
        self._halving, self._journal, self._numbers = halving, journal, numbers

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_halving": None, "_journal": None}  # Tune pickles it; the journal is our state

    def reason(self, trial_id: str) -> str | None:
        """Why a trial was stopped; None: it was not."""
        return self._halving.stopped.get(trial_id)

    def on_told(self, trial_id: str) -> None:
        """Learn from a trial that the journal has as told; from a failed one nothing."""
        self._halving.on_told(self._journal.state.trials[trial_id].metrics)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Tune asks before its callbacks hear of the result, so a stopped trial's last report is in the journal too."""
        trial_id, metrics = trial.config["trial_id"], self._numbers(result)
        if ENDED in result or CHECKPOINT in result:  # the trial has ended; there is nothing to save by stopping it
            return str(TrialScheduler.CONTINUE)
        may_stop = self._journal.state.trials[trial_id].kind == SEARCHED
        decision = self._halving.on_report(trial_id, metrics, may_stop=may_stop)
        return str(TrialScheduler.STOP if decision.stop else TrialScheduler.CONTINUE)


def scheduler_of(journal: Journal, numbers: Numbers) -> HalvingScheduler | None:
    """The scheduler of a sweep as its settings ask for it, knowing all that was reported; None: trials run to the end.

    Raises:
        ValueError: halving is asked for, and trials report no points.
    """
    settings = journal.state.settings
    if not settings.get("halving"):
        return None
    halving = FrontHalving(
        from_dict(HalvingConfig, settings["halving"]),
        every=settings["config"]["evaluation"]["every"],
        forgetting_limit=settings["forgetting_limit"],
    )
    replay_reports(halving, read_journal(journal.path))
    return HalvingScheduler(halving, journal, numbers)


def replay_reports(halving: FrontHalving, events: Iterable[Event]) -> None:
    """Give a new `halving` all that an earlier driver's heard, in the order of the journal."""
    kinds: dict[str, str] = {}
    for event in events:
        if event.event == "suggested":
            kinds[event.data["trial_id"]] = event.data["kind"]
        elif event.event == "reported":
            trial_id = event.data["trial_id"]
            metrics = {name: float(value) for name, value in event.data["metrics"].items()}
            halving.on_report(trial_id, metrics, may_stop=kinds[trial_id] == SEARCHED)
        elif event.event == "told":
            halving.on_told(event.data["metrics"])
