"""The anytime front: every encoder that a sweep scored, and which of their checkpoints must be kept; pure.

The front is what no other candidate beats on both axes, by the measured forgetting or by its upper bound: a limit
applies to the bound, so that a candidate that is surely within it does not go for one that only seems better. Of exact
ties, rate and bound alike, one stands for all: the one that took the fewest steps. Probe sets of some dozens of clips
make many.

A checkpoint is kept as long as a candidate claims it. A candidate on the front always does, and so does the latest
of a trial that has not ended. Every other one is discarded, the last one of a trial and an anchor's like any other:
no later result can bring it back to the front.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sonar.evaluate.axis_intervals import known_intervals
from sonar.search.dominance import Direction, non_dominated, nondominated_rank
from sonar.search.records import CandidateKey, CandidateRecord
from sonar.search.state import SweepState

DIRECTIONS: dict[str, Direction] = {"plasticity": "max", "forgetting_rate": "min"}
CONTENDERS = ("anchor", "search")  # kinds of trials with points of their own; others repeat one of these


class Discard(NamedTuple):
    """A candidate whose claim is to be given up, and why."""

    key: CandidateKey
    reason: str


def contenders(state: SweepState) -> list[CandidateRecord]:
    """Candidates of anchors and searched trials, discarded ones among them, by trial, step and alpha."""
    kinds = {trial_id: record.kind for trial_id, record in state.trials.items()}
    return [state.candidates[key] for key in sorted(state.candidates) if kinds[key.trial_id] in CONTENDERS]


def axes_of(candidate: CandidateRecord) -> tuple[float, float]:
    """Plasticity and forgetting rate, percent."""
    return candidate.metrics["plasticity"], candidate.metrics["forgetting_rate"]


def ranks_of(candidates: Sequence[CandidateRecord]) -> dict[CandidateKey, int]:
    """Non-dominated rank of every one among them by the measured axes, from 1."""
    values = np.asarray([axes_of(candidate) for candidate in candidates], dtype=np.float64)
    ranks = nondominated_rank(values, tuple(DIRECTIONS.values()))
    return {candidate.key: int(rank) for candidate, rank in zip(candidates, ranks, strict=True)}


def front_keys(candidates: Sequence[CandidateRecord]) -> set[CandidateKey]:
    """Those that no other one of them beats on both axes, measured or at the upper bound; of exact ties the first."""
    bounded = [(candidate.metrics["plasticity"], forgetting_bound(candidate)) for candidate in candidates]
    safe = non_dominated(bounded, tuple(DIRECTIONS.values()))
    best = non_dominated([axes_of(candidate) for candidate in candidates], tuple(DIRECTIONS.values()))
    on_front = (candidate for candidate, is_on in zip(candidates, safe | best, strict=True) if is_on)
    first: dict[tuple[float, ...], CandidateKey] = {}
    for candidate in sorted(on_front, key=_cost):
        first.setdefault(_merit(candidate), candidate.key)
    return set(first.values())


def _cost(candidate: CandidateRecord) -> tuple[bool, int, float, str]:
    """Order of ties: what can be taken at all, fewest steps, what is not computed from two checkpoints, the name."""
    key = candidate.key
    return candidate.checkpoint is None, key.step, -key.alpha, key.trial_id


def _merit(candidate: CandidateRecord) -> tuple[float, ...]:
    """All that membership of the front goes by."""
    return *axes_of(candidate), forgetting_bound(candidate)


def forgetting_bound(candidate: CandidateRecord) -> float:
    """Upper end of the interval of forgetting, percent; the rate itself where it is unknown."""
    interval = known_intervals(candidate.metrics).forgetting_rate
    return candidate.metrics["forgetting_rate"] if interval is None else interval.high


def to_discard(state: SweepState) -> list[Discard]:
    """Candidates that are on no front and will be on none, but for the latest of each trial that has not ended."""
    candidates = contenders(state)
    kept = front_keys(candidates)
    front = [candidate for candidate in candidates if candidate.key in kept]
    latest: dict[str, int] = {}
    for key in state.candidates:
        if not state.trials[key.trial_id].is_finished:
            latest[key.trial_id] = max(key.step, latest.get(key.trial_id, 0))
    return [
        Discard(key, _reason(candidate, front))
        for key, candidate in state.candidates.items()
        if candidate.discarded is None and key not in kept and key.step != latest.get(key.trial_id)
    ]


def claimed_checkpoints(state: SweepState) -> set[str]:
    """Folders that a candidate still needs."""
    live = (candidate for candidate in state.candidates.values() if candidate.discarded is None)
    return {candidate.checkpoint for candidate in live if candidate.checkpoint}


def describe_key(key: CandidateKey) -> str:
    """`trial-003 step 40`, with its alpha where it is not 1."""
    return f"{key.trial_id} {describe_place(key)}"


def describe_place(key: CandidateKey) -> str:
    """`step 40` or `step 40 alpha 0.5`."""
    return f"step {key.step}" + ("" if key.alpha == 1 else f" alpha {key.alpha:g}")


def _reason(candidate: CandidateRecord, front: list[CandidateRecord]) -> str:
    plasticity, forgetting = axes_of(candidate)
    if equal := next((one for one in front if _merit(one) == _merit(candidate)), None):
        return f"equal to {describe_key(equal.key)}"
    for better in front:
        above, below = axes_of(better)
        if above >= plasticity and below <= forgetting and (above, below) != (plasticity, forgetting):
            return f"dominated by {describe_key(better.key)}"
    return "a repeat, which has no point of its own on the front"
