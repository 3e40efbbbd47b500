"""How a sweep stands, as its journal and its owner's signs of life tell it; from any host, while it runs or after."""

from __future__ import annotations

from statistics import median
from typing import Any, NamedTuple

from sonar.search.owner import STALE_S, Owner
from sonar.search.results import front_hypervolume
from sonar.search.state import SweepState


class Standing(NamedTuple):
    """One look at a sweep.

    Attributes:
        word: "running", "stale" (its owner is gone without giving it back), "finished" or "stopped".
        sentence: the same for people, with the owner and what can be done.
        counts: trials by status.
        hypervolume: of the front; None until every anchor is told.
        eta_s: seconds that are left; None where it does not run or no trial has ended.
    """

    word: str
    sentence: str
    counts: dict[str, int]
    hypervolume: float | None
    eta_s: float | None


def standing(state: SweepState, owner: Owner | None, folder: str, now_s: float) -> Standing:
    """How the sweep in `folder` stands at `now_s`, a Unix time."""
    word, sentence = _word_of(state, owner, folder)
    counts = {status: 0 for status in ("suggested", "started", "paused", "told", "failed", "pruned")}
    for record in state.trials.values():
        counts[record.status] += 1
    return Standing(
        word, sentence, counts, front_hypervolume(state), eta_s(state, now_s) if word == "running" else None
    )


def num_expected(state: SweepState) -> int:
    """Trials that the sweep asks for, anchors and audited seeds among them; repeats of a re-evaluation come on top."""
    repeats = sum(record.kind == "reeval" for record in state.trials.values())
    asked = len(state.settings["anchors"]) + int(state.settings["num_trials"])
    return asked + int(state.settings.get("audit_seeds", 0)) + repeats


def is_complete(state: SweepState) -> bool:
    """Whether every trial has ended and no more are wanted: all were launched, or a budget ended the search."""
    if any(not record.is_finished for record in state.trials.values()):
        return False
    return state.end_reason is not None or len(state.trials) >= num_expected(state)


def eta_s(state: SweepState, now_s: float) -> float | None:
    """Seconds until the last trial ends, were all like the median of those that have ended; None while none has.

    As many run at a time as do now.
    """
    lasted = [
        record.ended_s - record.started_s
        for record in state.trials.values()
        if record.ended_s is not None and record.started_s is not None
    ]
    if not lasted:
        return None
    each_s = median(lasted)
    running = [record for record in state.trials.values() if record.status == "started"]
    begun = sum(max(0.0, each_s - (now_s - (record.started_s or now_s))) for record in running)
    num_waiting = num_expected(state) - len(lasted) - len(running)
    return (begun + max(0, num_waiting) * each_s) / max(1, len(running))


def plain(found: Standing, owner: Owner | None) -> dict[str, Any]:
    """For JSON."""
    return {**found._asdict(), "owner": None if owner is None else owner._asdict()}


def _word_of(state: SweepState, owner: Owner | None, folder: str) -> tuple[str, str]:
    if owner is not None and not owner.is_stale:
        return "running", f"running, owned by {owner} (last sign of life {owner.age_s:.0f} s ago)"
    if owner is not None:
        return "stale", (
            f"its owner {owner} is gone (no sign of life for {owner.age_s:.0f} s; {STALE_S:g} s count as gone, on its "
            f"own host a dead process): sonar sweep resume {folder}"
        )
    if is_complete(state):
        return "finished", "finished" if state.end_reason is None else f"finished: {state.end_reason}"
    return "stopped", f"stopped before its end: sonar sweep resume {folder}"
