"""A sweep's state as the plain records that a tracker mirrors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from sonar.mirror import RunRecord, SeriesPoint, Status, SweepSnapshot
from sonar.search.journal import SweepState, TrialRecord
from sonar.search.results import front_hypervolume, picked_id, ranked_trials

_STATUS: dict[str, Status] = {
    "suggested": "SCHEDULED",
    "started": "RUNNING",
    "paused": "SCHEDULED",
    "told": "FINISHED",
    "failed": "FAILED",
    "pruned": "KILLED",
}


def snapshot(state: SweepState, *, finished: bool, artifacts: Sequence[Path] = ()) -> SweepSnapshot:
    """All that MLflow is to know of a sweep now: one record for the sweep, one per trial.

    Args:
        state: of the sweep.
        finished: whether the sweep has ended.
        artifacts: files to show on the parent run.
    """
    ranks = {ranked.record.trial_id: ranked.rank for ranked in ranked_trials(state)}
    chosen = picked_id(state)
    trials = [_trial(record, ranks.get(record.trial_id), chosen, state) for record in state.trials.values()]
    return SweepSnapshot(sweep=_sweep(state, finished), trials=trials, artifacts=artifacts)


def _sweep(state: SweepState, finished: bool) -> RunRecord:
    settings = state.settings
    created = state.created_s or 0.0
    volume = front_hypervolume(state)
    ends = [record.ended_s for record in state.trials.values() if record.ended_s is not None]
    return RunRecord(
        key=settings["name"],
        name=settings["name"],
        params={f"space.{key}": str(dimension) for key, dimension in settings["space"].items()},
        metrics={} if volume is None else {"hypervolume": volume},
        tags={"domain": settings["domain"], "seed": str(settings["seed"])},
        status="FINISHED" if finished else "RUNNING",
        start_ms=int(created * 1000),
        end_ms=int(max(ends) * 1000) if finished and ends else None,
    )


def _trial(record: TrialRecord, rank: int | None, chosen: str | None, state: SweepState) -> RunRecord:
    created = state.created_s or 0.0
    tags = {"domain": state.settings["domain"], "kind": record.kind, "checkpoint": record.checkpoint or ""}
    tags |= {"reason": record.reason} if record.reason else {}
    tags |= {"pareto.rank": str(rank)} if rank is not None else {}
    tags |= {"pareto.pick": "true"} if record.trial_id == chosen else {}
    return RunRecord(
        key=record.trial_id,
        name=record.name,
        params=dict(record.params) or _searched_values(record.config, state.settings["space"]),
        metrics=dict(record.metrics),
        series=[SeriesPoint(r.step, int(r.time_s * 1000), r.metrics) for r in record.reports],
        tags=tags,
        status=_STATUS[record.status],
        start_ms=int((record.started_s or created) * 1000),
        end_ms=None if record.ended_s is None else int(record.ended_s * 1000),
    )


def _searched_values(config: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """What an anchor has at the searched keys, so that it can be compared; nothing where no config was recorded."""
    if not config:
        return {}
    return {key: reduce(lambda section, part: section[part], key.split("."), config) for key in keys}
