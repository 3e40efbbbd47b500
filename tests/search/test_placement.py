"""What outlives its trial is removed, and nothing else is."""

from pathlib import Path

import pytest
import ray
from ray.util import placement_group, placement_group_table

from sonar.search.placement import ENDED_GRACE_S, LOOK_EVERY_S, NEW_GRACE_S, PlacementWatch
from sonar.train.launch import PLACEMENT_FILE

RAY_CPUS = 8
pytestmark = pytest.mark.ray


def plant(trials: Path, trial_id: str | None, num_bundles: int = 2) -> str:
    """A group as the workers of a trial hold it; with its trial's id, as they note it."""
    group = placement_group([{"CPU": 1}] * num_bundles)
    ray.get(group.ready())
    if trial_id is not None:
        (trials / trial_id).mkdir(parents=True)
        (trials / trial_id / PLACEMENT_FILE).write_text(group.id.hex())
    return group.id.hex()


def alive() -> set[str]:
    return {group for group, found in placement_group_table().items() if found["state"] != "REMOVED"}


def test_only_groups_of_trials_that_have_ended_are_removed(local_ray: None, tmp_path: Path) -> None:
    now, lines = [0.0], list[str]()
    running, ended, unnamed = (plant(tmp_path, trial_id) for trial_id in ("trial-000", "trial-001", None))
    of_tune = plant(tmp_path, None, num_bundles=1)
    watch = PlacementWatch(tmp_path, 2, lines.append, clock=lambda: now[0])

    def look(seconds: float) -> list[str]:
        now[0] += seconds
        return watch(["trial-000"])

    assert look(LOOK_EVERY_S) == []  # Ray's own cleaning comes first
    assert look(ENDED_GRACE_S / 2) == []  # no look yet
    assert look(LOOK_EVERY_S) == [ended]
    assert look(NEW_GRACE_S) == [unnamed]
    assert lines[0].startswith("freed what trial-001 still held after its end") and "a trial still held" in lines[1]
    assert alive() == {running, of_tune}
    assert watch([]) == []
    assert look(LOOK_EVERY_S) == []


def test_trials_without_workers_of_their_own_have_nothing_to_watch(local_ray: None, tmp_path: Path) -> None:
    now = [0.0]
    planted = plant(tmp_path, None, num_bundles=1)
    watch = PlacementWatch(tmp_path, 1, print, clock=lambda: now[0])
    for _ in range(3):
        now[0] += NEW_GRACE_S
        assert watch([]) == []
    assert planted in alive()
