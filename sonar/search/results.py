"""What a sweep's state says: its points, the front, hypervolume, the pick, and one row per trial."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sonar.files import write_whole_text
from sonar.search.journal import SweepState, TrialRecord
from sonar.search.pareto import Pick, Point, hypervolume, nondominated_rank, pick_epsilon, pick_knee

REFERENCE_MARGIN = 1.0  # percent by which the hypervolume's reference point is worse than the worst anchor


class Ranked(NamedTuple):
    """A told trial as a point on the two axes, with its non-dominated rank (1: on the front)."""

    record: TrialRecord
    point: Point
    rank: int


def ranked_trials(state: SweepState) -> list[Ranked]:
    """All told trials in order of their ids; failed and running ones are not points."""
    told = sorted((r for r in state.trials.values() if r.status == "told"), key=lambda record: record.trial_id)
    if not told:
        return []
    points = [Point(record.name, record.metrics["plasticity"], record.metrics["forgetting_rate"]) for record in told]
    ranks = nondominated_rank(_values(points), ("max", "min"))
    return [Ranked(record, point, int(rank)) for record, point, rank in zip(told, points, ranks, strict=True)]


def front(state: SweepState) -> list[Ranked]:
    """The trials that no other one dominates."""
    return [ranked for ranked in ranked_trials(state) if ranked.rank == 1]


def pick(state: SweepState, rule: str = "epsilon", limit: float | None = None) -> tuple[TrialRecord, Pick]:
    """One trial of the front and why.

    Args:
        state: of the sweep.
        rule: "epsilon" (most plasticity with forgetting <= limit) or "knee".
        limit: percent; None: the sweep's own.

    Raises:
        ValueError: no trial qualifies, or no such rule.
    """
    ranked = front(state)
    points = [r.point for r in ranked]
    if rule == "epsilon":
        chosen = pick_epsilon(points, state.settings["forgetting_limit"] if limit is None else limit)
    elif rule == "knee":
        chosen = pick_knee(points)
    else:
        raise ValueError(f"no pick rule is called {rule!r}; there are epsilon and knee")
    return ranked[chosen.index].record, chosen


def picked_id(state: SweepState) -> str | None:
    """Id of the trial that the sweep's own rule picks, or None while none qualifies."""
    try:
        record, _ = pick(state)
    except ValueError:
        return None
    return record.trial_id


def front_hypervolume(state: SweepState) -> float | None:
    """Hypervolume in percent squared against a point worse than every anchor; None until every anchor is told.

    Against another reference it would not compare with other sweeps.
    """
    ranked = ranked_trials(state)
    anchors = [r.point for r in ranked if r.record.kind == "anchor"]
    begun = [record.trial_id for record in state.trials.values() if record.kind == "anchor"]
    wanted = {*begun, *(f"anchor-{name}" for name in state.settings.get("anchors", ()))}
    if not anchors or len(anchors) < len(wanted):
        return None
    reference = (
        min(point.plasticity for point in anchors) - REFERENCE_MARGIN,
        max(point.forgetting_rate for point in anchors) + REFERENCE_MARGIN,
    )
    return hypervolume(_values([r.point for r in ranked]), ("max", "min"), reference)


def write_trials_csv(state: SweepState, path: Path) -> None:
    """One row per trial, in order of their ids: status, rank, parameters, metrics, reason."""
    ranks = {r.record.trial_id: r.rank for r in ranked_trials(state)}
    rows = [_row(record, ranks.get(record.trial_id)) for _, record in sorted(state.trials.items())]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    _write_csv(path, columns, rows)


def write_front_csv(state: SweepState, path: Path) -> None:
    """The trials that no other one dominates, by rising forgetting: id, name, kind, both axes, pick, checkpoint."""
    chosen = picked_id(state)
    columns = ["trial_id", "name", "kind", "plasticity", "forgetting_rate", "pick", "checkpoint"]
    rows = [
        {
            "trial_id": record.trial_id,
            "name": record.name,
            "kind": record.kind,
            "plasticity": point.plasticity,
            "forgetting_rate": point.forgetting_rate,
            "pick": int(record.trial_id == chosen),
            "checkpoint": record.checkpoint,
        }
        for record, point, _ in sorted(front(state), key=lambda r: (r.point.forgetting_rate, r.record.trial_id))
    ]
    _write_csv(path, columns, rows)


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_whole_text(path, text.getvalue())


def _row(record: TrialRecord, rank: int | None) -> dict[str, Any]:
    row: dict[str, Any] = {"trial_id": record.trial_id, "kind": record.kind, "status": record.status}
    row["pareto_rank"] = "" if rank is None else rank
    row |= {name: record.metrics.get(name, "") for name in ("plasticity", "forgetting_rate", "forgetting_worst")}
    row |= record.params
    row |= {name: value for name, value in sorted(record.metrics.items()) if name not in row}
    row["checkpoint"], row["reason"] = record.checkpoint or "", record.reason or ""
    return row


def _values(points: list[Point]) -> np.ndarray:
    return np.asarray([(point.plasticity, point.forgetting_rate) for point in points], dtype=np.float64)
