"""A driver killed at any point: the resumed sweep tells every trial once and has the front of one never stopped."""

import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fake_driver import STEPS, SWEEP, drive, in_process, work_done

from sonar.search.journal import Event, read_journal, replay
from sonar.search.owner import read_owner
from sonar.search.results import front
from sonar.search.run import JOURNAL_FILE
from sonar.search.stopping import StopRequest

NUM_POINTS = 24
NUM_TRIALS = SWEEP.num_trials + len(SWEEP.anchors)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    process = in_process(drive, folder)
    process.join()
    assert process.exitcode == 0
    return folder


def ends(events: list[Event]) -> dict[str, tuple[str, Any]]:
    """How each trial ended; a second end of a trial would be an error of the replay already."""
    return {
        event.data["trial_id"]: (event.event, event.data.get("metrics", event.data.get("reason")))
        for event in events
        if event.event in ("told", "failed", "pruned")
    }


def params(events: list[Event]) -> dict[str, Any]:
    return {event.data["trial_id"]: event.data["params"] for event in events if event.event == "suggested"}


def kill_at(folder: Path, num_bytes: int, delay_s: float) -> bool:
    """Start a driver and SIGKILL it once its journal has so many bytes; whether it was still at work."""
    journal, process = folder / JOURNAL_FILE, in_process(drive, folder)
    while process.is_alive() and (not journal.exists() or journal.stat().st_size < num_bytes):
        time.sleep(0.0005)
    time.sleep(delay_s)
    process.kill()
    process.join()
    return process.exitcode != 0


def assert_equal(folder: Path, whole: Path) -> None:
    found, expected = (read_journal(path / JOURNAL_FILE) for path in (folder, whole))
    assert Counter(event.event for event in found if event.event in ("told", "failed")) == Counter(
        event.event for event in expected if event.event in ("told", "failed")
    )
    assert ends(found) == ends(expected) and len(ends(found)) == NUM_TRIALS
    assert params(found) == params(expected)
    fronts = [[(r.record.trial_id, r.point) for r in front(replay(events))] for events in (found, expected)]
    assert fronts[0] == fronts[1] and fronts[0]


def test_the_sweep_that_is_compared_with_has_all_ends_and_a_front_of_several(whole: Path) -> None:
    events = read_journal(whole / JOURNAL_FILE)
    assert {end for end, _ in ends(events).values()} == {"told", "failed"}
    reasons = {what for end, what in ends(events).values() if end == "failed"}
    assert reasons == {"NonFiniteLossError: loss is nan", "plasticity is inf"}
    assert len(front(replay(events))) >= 3
    assert all(steps == [1, 2, 3] for steps in work_done(whole).values())


@pytest.mark.parametrize("point", range(NUM_POINTS))
def test_a_driver_killed_at_a_random_point_loses_and_repeats_nothing(point: int, whole: Path, tmp_path: Path) -> None:
    draw = random.Random(point)
    size = (whole / JOURNAL_FILE).stat().st_size
    was_at_work = kill_at(tmp_path, round(size * (point + draw.random()) / NUM_POINTS), draw.uniform(0, 0.02))
    assert was_at_work or point > NUM_POINTS // 2
    process = in_process(drive, tmp_path)
    process.join()
    assert process.exitcode == 0
    assert_equal(tmp_path, whole)
    for steps in work_done(tmp_path).values():
        assert len(steps) <= STEPS + 1  # at most the step that was being taken is taken again
    assert read_owner(tmp_path) is None


def test_a_driver_killed_again_and_again_gets_there_too(whole: Path, tmp_path: Path) -> None:
    draw, kills = random.Random(0), 0
    size = (whole / JOURNAL_FILE).stat().st_size
    journal = tmp_path / JOURNAL_FILE
    while not journal.exists() or len(ends(read_journal(journal))) < NUM_TRIALS:
        now = journal.stat().st_size if journal.exists() else 0
        kills += kill_at(tmp_path, now + round(size * draw.uniform(0.02, 0.12)), draw.uniform(0, 0.005))
    assert kills >= 8
    assert_equal(tmp_path, whole)


def test_a_sweep_that_was_drained_ends_as_one_that_was_not(whole: Path, tmp_path: Path) -> None:
    process = in_process(drive, tmp_path)
    while not (tmp_path / JOURNAL_FILE).exists() or len(read_journal(tmp_path / JOURNAL_FILE)) < 20:
        time.sleep(0.001)
    StopRequest(tmp_path).ask("the test")
    process.join()
    state = replay(read_journal(tmp_path / JOURNAL_FILE))
    paused = [record for record in state.trials.values() if record.status == "paused"]
    assert process.exitcode == 0 and paused and all("stopped after step" in str(r.reason) for r in paused)
    assert all(record.is_finished or record.status == "paused" for record in state.trials.values())
    StopRequest(tmp_path).withdraw()
    process = in_process(drive, tmp_path)
    process.join()
    assert_equal(tmp_path, whole)
    assert all(steps == [1, 2, 3] for steps in work_done(tmp_path).values())  # nothing is done twice
