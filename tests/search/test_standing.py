"""How a sweep stands: running, stale, stopped or finished, and when it will end."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from fake_sweep import SETTINGS, write_finished

from sonar.search.owner import STALE_S, Owner
from sonar.search.records import TrialRecord
from sonar.search.standing import eta_s, num_expected, plain, standing
from sonar.search.state import SweepState

LIVE = Owner("far", 7, 1.0, "token", age_s=3.0)


def trial(trial_id: str, status: str, started_s: float | None, ended_s: float | None = None) -> TrialRecord:
    made = TrialRecord(trial_id=trial_id, kind="search", name=trial_id, params={})
    return replace(made, status=status, started_s=started_s, ended_s=ended_s)


def state(*trials: TrialRecord, num_trials: int = 8) -> SweepState:
    settings = SETTINGS | {"num_trials": num_trials, "anchors": []}
    return SweepState(settings, 0.0, {record.trial_id: record for record in trials})


HALF = state(
    trial("a", "failed", 0.0, 100.0),
    trial("b", "failed", 0.0, 60.0),
    trial("c", "failed", 0.0, 80.0),
    trial("d", "started", 100.0),
    trial("e", "started", 120.0),
)


@pytest.mark.parametrize(
    ("owner", "word", "said"),
    [
        (LIVE, "running", "owned by process 7 on far"),
        (LIVE._replace(age_s=STALE_S + 1), "stale", "process 7 on far is gone .*: sonar sweep resume runs/x"),
        (None, "stopped", "stopped before its end: sonar sweep resume runs/x"),
    ],
)
def test_the_owners_signs_of_life_say_how_an_unfinished_sweep_stands(owner: Owner | None, word: str, said: str) -> None:
    found = standing(HALF, owner, "runs/x", 140.0)
    assert found.word == word
    assert re.search(said, found.sentence)
    assert (found.eta_s is None) is (word != "running")
    assert found.counts == {"suggested": 0, "started": 2, "paused": 0, "told": 0, "failed": 3, "pruned": 0}


def test_a_sweep_whose_trials_have_all_ended_is_finished(tmp_path: Path) -> None:
    done = write_finished(tmp_path / "bio")
    found = standing(done, None, "runs/bio", 0.0)
    assert found.word == "finished" and found.hypervolume is not None
    assert plain(found, LIVE)["owner"]["pid"] == 7
    assert sum(found.counts.values()) == num_expected(done)


def test_a_search_that_ended_by_its_budget_is_finished_with_fewer_trials() -> None:
    ended = replace(state(trial("a", "failed", 0.0, 1.0)), end_reason="2.00 of 2 hours are spent")
    found = standing(ended, None, "runs/x", 0.0)
    assert (found.word, found.sentence) == ("finished", "finished: 2.00 of 2 hours are spent")


def test_the_time_left_is_that_of_the_median_trial_with_as_many_at_a_time_as_now() -> None:
    # d has 80 - 40 s left, e 80 - 20 s, three more wait with 80 s each; two at a time.
    assert eta_s(HALF, 140.0) == pytest.approx((40 + 60 + 3 * 80) / 2)
    assert eta_s(HALF, 1e6) == pytest.approx(3 * 80 / 2)  # the running ones are late, and no less than due


def test_nothing_is_known_before_a_trial_has_ended() -> None:
    assert eta_s(state(trial("a", "started", 0.0)), 5.0) is None
