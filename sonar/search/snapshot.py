"""A sweep's state as the plain records that a tracker mirrors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from sonar.mirror import RunRecord, SeriesPoint, Status, SweepSnapshot
from sonar.search.candidates import claimed_checkpoints, describe_place
from sonar.search.journal import SweepState, TrialRecord
from sonar.search.results import front, front_hypervolume, picked, ranked_trials

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
    places = _pareto_tags(state)
    kept = claimed_checkpoints(state)
    trials = [_trial(record, places.get(record.trial_id, {}), state, kept) for record in state.trials.values()]
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


def _pareto_tags(state: SweepState) -> dict[str, dict[str, str]]:
    """Of every trial that has candidates: its best rank, which of them are on the front, which one is picked."""
    tags = {ranked.record.trial_id: {"pareto.rank": str(ranked.rank)} for ranked in ranked_trials(state)}
    on_front: dict[str, list[str]] = {}
    for ranked in front(state):
        on_front.setdefault(ranked.record.trial_id, []).append(describe_place(ranked.candidate.key))
    for trial_id, places in on_front.items():
        tags[trial_id]["pareto.front"] = ", ".join(places)
    if chosen := picked(state):
        tags[chosen.trial_id]["pareto.pick"] = describe_place(chosen)
    return tags


def _trial(record: TrialRecord, pareto: Mapping[str, str], state: SweepState, kept: Collection[str]) -> RunRecord:
    created = state.created_s or 0.0
    tags = {"domain": state.settings["domain"], "kind": record.kind}
    tags |= {"checkpoint": record.checkpoint if record.checkpoint in kept else ""}
    tags |= {"reason": record.reason} if record.reason else {}
    tags |= pareto
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
