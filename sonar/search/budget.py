"""When a sweep launches no more trials: by trials, by hours, by convergence; pure functions of its state."""

from __future__ import annotations

from sonar.search.convergence import Convergence
from sonar.search.journal import SweepState
from sonar.search.results import front_hypervolume
from sonar.search.space import Sweep


def spent_reason(sweep: Sweep, state: SweepState, hours: float) -> str | None:
    """Why no further trial is to be launched, or None while one may be.

    Args:
        sweep: with its budgets.
        state: of the sweep.
        hours: that it has run, as `spent_hours` counts them.
    """
    num_searched = sum(record.kind == "search" for record in state.trials.values())
    if num_searched >= sweep.num_trials:
        return f"all {sweep.num_trials} trials were launched"
    if sweep.budget_hours is not None and hours >= sweep.budget_hours:
        return f"{hours:.2f} of {sweep.budget_hours:g} hours are spent"
    gain = None if sweep.converge is None else hypervolume_gain(state, sweep.converge)
    if sweep.converge is not None and gain is not None and gain < sweep.converge.gain_percent:
        return (
            f"the last {sweep.converge.num_trials} trials added {gain:.2f} % to the hypervolume, "
            f"less than {sweep.converge.gain_percent:g} %"
        )
    return None


def spent_hours(state: SweepState, now_s: float, began_s: float) -> float:
    """Hours that drivers have been at work on the sweep; what they prepare before the first trial does not count.

    Args:
        state: of the sweep.
        now_s: Unix time in seconds.
        began_s: when the present driver began; the time between the last event before it and this is nobody's work.
    """
    if state.last_s is None:
        return 0.0
    return (state.spent_s + max(0.0, now_s - max(state.last_s, began_s))) / 3600


def hypervolume_gain(state: SweepState, converge: Convergence) -> float | None:
    """What the last told trials added to the hypervolume, in percent of what it was before them.

    Returns:
        None while that cannot be said: an anchor or that many trials are still to be told, or there was none before.
    """
    told = [record for record in state.trials.values() if record.kind == "search" and record.status == "told"]
    last = sorted(told, key=lambda record: record.ended_s or 0.0)[-converge.num_trials :]
    now = front_hypervolume(state)
    if now is None or len(last) < converge.num_trials:
        return None
    before = front_hypervolume(state.without({record.trial_id for record in last}))
    return 100 * (now - before) / before if before else None
