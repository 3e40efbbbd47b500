"""What a sweep's state says: its points, the front, hypervolume, the pick, and the tables of both."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sonar.evaluate.axis_intervals import AxisIntervals, known_intervals
from sonar.files import write_whole_text
from sonar.search.candidates import (
    DIRECTIONS,
    axes_of,
    claimed_checkpoints,
    contenders,
    describe_place,
    front_keys,
)
from sonar.search.dominance import hypervolume
from sonar.search.journal import SweepState, TrialRecord
from sonar.search.picks.contribution import pick_contribution
from sonar.search.picks.epsilon import pick_epsilon
from sonar.search.picks.knee import pick_knee
from sonar.search.picks.point import Pick, Point
from sonar.search.picks.weights import pick_weights
from sonar.search.records import CandidateKey, CandidateRecord
from sonar.search.repeats import is_repeated, mean_candidates, ranks_of_means

FRONT_COLUMNS = ("trial_id", "name", "kind", "step", "alpha", "rank", "plasticity", "plasticity_low", "plasticity_high",
                 "forgetting_rate", "forgetting_rate_low", "forgetting_rate_high", "pick", "checkpoint")  # fmt: skip
RULES = ("epsilon", "knee", "weights", "contribution")
REFERENCE_MARGIN = 1.0  # percent by which the hypervolume's reference point is worse than the worst anchor


class Ranked(NamedTuple):
    """A candidate as a point on the two axes, with its non-dominated rank (1: on the front) and its trial."""

    record: TrialRecord
    point: Point
    rank: int
    candidate: CandidateRecord


def ranked_candidates(state: SweepState) -> list[Ranked]:
    """Every encoder that the sweep scored, by trial, step and alpha; whatever shows a point or a rank asks here."""
    means = mean_candidates(state)
    ranks = ranks_of_means(state, means)
    found = []
    for mean in means:
        key = mean.key
        record = state.trials[key.trial_id]
        found.append(Ranked(record, _point(record, mean), ranks[key], state.candidates[key]))
    return found


def ranked_trials(state: SweepState) -> list[Ranked]:
    """The best candidate of every trial that has one, by trial: the lowest rank, then what the trial was told with."""

    def worth(ranked: Ranked) -> tuple[int, bool, float]:
        return ranked.rank, ranked.point.name != ranked.record.name, -ranked.point.plasticity

    best: dict[str, Ranked] = {}
    for ranked in ranked_candidates(state):
        known = best.get(ranked.record.trial_id)
        if known is None or worth(ranked) < worth(known):
            best[ranked.record.trial_id] = ranked
    return list(best.values())


def front(state: SweepState) -> list[Ranked]:
    """The candidates that no other one beats on both axes, by rising forgetting; whatever shows a front asks here.

    By the measured axes, which is rank 1, or with the upper bound of forgetting in place of the rate. Of a sweep that
    was re-evaluated the same of the means, among candidates whose weights are there: no other one could be picked.
    """
    candidates = mean_candidates(state)
    if is_repeated(state):
        candidates = [candidate for candidate in candidates if candidate.discarded is None]
    kept = front_keys(candidates)
    members = [ranked for ranked in ranked_candidates(state) if ranked.candidate.key in kept]
    return sorted(members, key=lambda ranked: (ranked.point.forgetting_rate, ranked.candidate.key))


def _point(record: TrialRecord, candidate: CandidateRecord) -> Point:
    """Named as the trial where it is what the trial was told with."""
    name = record.name if record.ends_with(candidate.key) else f"{record.name} {describe_place(candidate.key)}"
    return Point(name, *axes_of(candidate), *known_intervals(candidate.metrics))


class Choice(NamedTuple):
    """How one candidate of the front is chosen.

    Attributes:
        rule: "epsilon": most plasticity within `limit`; "knee": the front's bend, where it is stable; "weights": the
            highest plasticity - `weight` x forgetting; "contribution": the largest share of the hypervolume.
        limit: of "epsilon", percent; None: the sweep's own.
        weight: of "weights".
    """

    rule: str = "epsilon"
    limit: float | None = None
    weight: float | None = None

    def check(self) -> None:
        """Raise ValueError unless the rule is known and given what it reads, and nothing else."""
        if self.rule not in RULES:
            raise ValueError(f"no pick rule is called {self.rule!r}; there are {', '.join(RULES)}")
        if self.limit is not None and self.rule != "epsilon":
            raise ValueError(f"a limit belongs to the rule epsilon, not to {self.rule}; leave it out")
        if (self.weight is None) == (self.rule == "weights"):
            raise ValueError("a weight belongs to the rule weights, which needs one: percent of plasticity that one "
                             "percent of forgetting is worth")  # fmt: skip


def pick(
    state: SweepState, choice: Choice | None = None, draw: Callable[[list[Ranked]], np.ndarray] | None = None
) -> tuple[Ranked, Pick]:
    """One candidate of the front and why.

    Args:
        state: of the sweep.
        choice: the rule; None: the sweep's own, which all that shows a pick uses.
        draw: gives (R, N, 2) resampled axes of the front, which only the knee needs.

    Raises:
        ValueError: no candidate qualifies, or the choice is none.
    """
    choice = choice or Choice()
    choice.check()
    members = front(state)
    points = [ranked.point for ranked in members]
    if choice.rule == "epsilon":
        chosen = pick_epsilon(points, state.settings["forgetting_limit"] if choice.limit is None else choice.limit)
    elif choice.rule == "knee":
        chosen = pick_knee(points, draw(members) if draw else None)
    elif choice.rule == "weights":
        assert choice.weight is not None
        chosen = pick_weights(points, choice.weight)
    else:
        chosen = pick_contribution(points, _reference(state))
    return members[chosen.index], chosen


def picked(state: SweepState) -> CandidateKey | None:
    """The candidate that the sweep's own rule picks, or None while none qualifies."""
    try:
        return pick(state)[0].candidate.key
    except ValueError:
        return None


def picked_id(state: SweepState) -> str | None:
    """Id of the trial of that candidate."""
    key = picked(state)
    return None if key is None else key.trial_id


def front_hypervolume(state: SweepState) -> float | None:
    """Hypervolume in percent squared against a point worse than every anchor; None until every anchor is told.

    Against another reference it would not compare with other sweeps. All candidates count, and the reference is that of
    the anchors as they ended.
    """
    begun = {record.trial_id for record in state.trials.values() if record.kind == "anchor"}
    wanted = begun | {f"anchor-{name}" for name in state.settings.get("anchors", ())}
    if not wanted or not all(name in state.trials and state.trials[name].status == "told" for name in wanted):
        return None
    values = [axes_of(candidate) for candidate in contenders(state)]
    return hypervolume(values, tuple(DIRECTIONS.values()), _reference(state))


def _reference(state: SweepState) -> tuple[float, float]:
    """A point worse than every anchor that has ended, as it ended."""
    told = [record for record in state.trials.values() if record.kind == "anchor" and record.status == "told"]
    if not told:
        raise ValueError("no anchor has ended, so the hypervolume has no reference; wait, or use another rule")
    return (
        min(record.metrics["plasticity"] for record in told) - REFERENCE_MARGIN,
        max(record.metrics["forgetting_rate"] for record in told) + REFERENCE_MARGIN,
    )


def write_trials_csv(state: SweepState, path: Path) -> None:
    """One row per trial, in order of their ids: status, best rank, parameters, metrics, checkpoint if kept, reason."""
    ranks = {r.record.trial_id: r.rank for r in ranked_trials(state)}
    claimed = claimed_checkpoints(state)
    rows = [_row(record, ranks.get(record.trial_id), claimed) for _, record in sorted(state.trials.items())]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    _write_csv(path, columns, rows)


def write_front_csv(state: SweepState, path: Path) -> None:
    """The front by rising forgetting: which candidate, both axes with intervals, pick, checkpoint."""
    chosen = picked(state)
    rows = [
        {
            "trial_id": ranked.record.trial_id,
            "name": ranked.record.name,
            "kind": ranked.record.kind,
            "step": ranked.candidate.key.step,
            "alpha": ranked.candidate.key.alpha,
            "rank": ranked.rank,
            "plasticity": ranked.point.plasticity,
            "forgetting_rate": ranked.point.forgetting_rate,
            "pick": int(ranked.candidate.key == chosen),
            "checkpoint": ranked.candidate.checkpoint,
        }
        | AxisIntervals(*ranked.point[3:]).metrics()
        for ranked in front(state)
    ]
    _write_csv(path, FRONT_COLUMNS, rows)


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_whole_text(path, text.getvalue())


def _row(record: TrialRecord, rank: int | None, claimed: set[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"trial_id": record.trial_id, "kind": record.kind, "status": record.status}
    row["pareto_rank"] = "" if rank is None else rank
    row |= {name: record.metrics.get(name, "") for name in ("plasticity", "forgetting_rate", "forgetting_worst")}
    row |= record.params
    row |= {name: value for name, value in sorted(record.metrics.items()) if name not in row}
    row["checkpoint"] = record.checkpoint if record.checkpoint in claimed else ""
    row["reason"] = record.reason or ""
    return row
