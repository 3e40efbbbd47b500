"""What a tracker is told agrees with the journal."""

from pathlib import Path

import pytest
from fake_sweep import write_finished

from sonar.search.journal import Journal, SweepState
from sonar.search.results import front_hypervolume, picked_id, ranked_trials
from sonar.search.run import JOURNAL_FILE
from sonar.search.snapshot import snapshot


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_finished(tmp_path / "bio")
    return tmp_path / "bio"


@pytest.fixture
def state(folder: Path) -> SweepState:
    """With a trial that was suggested, one that runs and one that was stopped early."""
    with Journal(folder / JOURNAL_FILE) as journal:
        for name in ("waiting", "running", "stopped"):
            journal.append("suggested", trial_id=name, kind="search", params={"sampling.replay_ratio": 0.5})
        journal.append("started", trial_id="running")
        journal.append("pruned", trial_id="stopped", reason="dominated")
        return journal.state


def test_every_trial_is_told_with_the_journals_numbers(state: SweepState) -> None:
    records = snapshot(state, finished=False).trials
    assert [record.key for record in records] == list(state.trials)
    for record in records:
        trial = state.trials[record.key]
        assert record.metrics == trial.metrics
        assert record.params == trial.params
        assert [(point.step, point.metrics) for point in record.series] == [(r.step, r.metrics) for r in trial.reports]
        assert record.start_ms == int((trial.started_s or state.created_s or 0) * 1000)
        assert record.end_ms == (None if trial.ended_s is None else int(trial.ended_s * 1000))


def test_a_status_is_the_trackers_word_for_the_journals(state: SweepState) -> None:
    words = {"suggested": "SCHEDULED", "started": "RUNNING", "told": "FINISHED", "failed": "FAILED", "pruned": "KILLED"}
    for record in snapshot(state, finished=False).trials:
        assert record.status == words[state.trials[record.key].status]
    assert {trial.status for trial in state.trials.values()} == set(words)


def test_ranks_are_on_told_trials_only_and_one_trial_is_the_pick(state: SweepState) -> None:
    records = {record.key: record for record in snapshot(state, finished=False).trials}
    ranks = {key: int(r.tags["pareto.rank"]) for key, r in records.items() if "pareto.rank" in r.tags}
    assert ranks == {ranked.record.trial_id: ranked.rank for ranked in ranked_trials(state)}
    assert [key for key, record in records.items() if "pareto.pick" in record.tags] == [picked_id(state)]
    assert records["trial-002"].tags["reason"] == "plasticity is nan"


def test_the_sweep_ends_with_its_last_trial(state: SweepState, folder: Path) -> None:
    running, ended = snapshot(state, finished=False), snapshot(state, finished=True, artifacts=[folder / "a.html"])
    assert (running.sweep.status, running.sweep.end_ms) == ("RUNNING", None)
    assert ended.sweep.status == "FINISHED" and list(ended.artifacts) == [folder / "a.html"]
    last = max(trial.ended_s for trial in state.trials.values() if trial.ended_s is not None)
    assert ended.sweep.end_ms == int(last * 1000)
    assert ended.sweep.metrics == {"hypervolume": front_hypervolume(state)}
    assert ended.sweep.start_ms <= min(record.start_ms for record in ended.trials)


def test_a_sweep_that_has_just_begun_is_a_snapshot_too(folder: Path) -> None:
    empty = SweepState(settings=write_finished(folder.parent / "other").settings, created_s=5.0)
    taken = snapshot(empty, finished=False)
    assert (taken.trials, taken.sweep.metrics, taken.sweep.start_ms) == ([], {}, 5000)
