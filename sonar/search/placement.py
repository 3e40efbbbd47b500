"""Placement groups that outlive their trial: Ray leaves some behind (ray#54305), and the next trial waits for ever."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path

import ray
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup

from sonar.search.progress import Say
from sonar.search.state import SweepState
from sonar.train.launch import PLACEMENT_FILE

LOOK_EVERY_S = 15.0
ENDED_GRACE_S = 10.0  # after its trial has ended: Ray's own cleaning comes first
NEW_GRACE_S = 240.0  # of a group that nobody has named: Train starts workers within its time-out of 180 s


class PlacementWatch:
    """Removes the groups of nested workers of this driver that belong to no running trial.

    A group is of this driver when its id ends with the id of the driver's job, and of nested workers when it has as
    many bundles as a trial has workers; Tune's own have one. Workers write their group into their trial's folder.
    """

    def __init__(self, trials: Path, num_workers: int, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        """Watch the groups of trials below `trials` with `num_workers` workers each; 1: there are none."""
        self._trials, self._num_workers, self._say, self._clock = trials, num_workers, say, clock
        self._looked_s = clock()
        self._orphaned_s: dict[str, float] = {}  # since when each group has had no running trial

    def __call__(self, running: Collection[str]) -> list[str]:
        """Look, no more often than every `LOOK_EVERY_S`; the ids of the groups that were removed.

        Args:
            running: ids of the trials that run.
        """
        now = self._clock()
        if self._num_workers == 1 or now - self._looked_s < LOOK_EVERY_S:
            return []
        self._looked_s = now
        trial_of = {
            path.read_text(encoding="utf-8"): path.parent.name for path in self._trials.glob(f"*/{PLACEMENT_FILE}")
        }
        orphans = {group: trial_of.get(group) for group in self._groups() if trial_of.get(group) not in running}
        self._orphaned_s = {group: self._orphaned_s.get(group, now) for group in orphans}
        removed = []
        for group, trial_id in orphans.items():
            if now - self._orphaned_s[group] >= (NEW_GRACE_S if trial_id is None else ENDED_GRACE_S):
                remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group))))
                self._say(f"freed what {trial_id or 'a trial'} still held after its end (placement group {group})")
                removed.append(group)
        return removed

    def look_at(self, state: SweepState) -> None:
        """Look with the trials that run in a sweep."""
        self([record.trial_id for record in state.trials.values() if record.status == "started"])

    def _groups(self) -> list[str]:
        job = ray.get_runtime_context().get_job_id()
        return [
            group
            for group, found in placement_group_table().items()
            if group.endswith(job) and found["state"] != "REMOVED" and len(found["bundles"]) == self._num_workers
        ]
