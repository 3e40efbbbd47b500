"""Progress lines say what the journal and the steps say, and no more often than asked."""

from dataclasses import replace

import pytest
from fake_sweep import SETTINGS

from sonar.search.journal import Report, SweepState, TrialRecord
from sonar.search.progress import ProgressLine, StepLines, describe
from sonar.train.loop import StepReport


def record(trial_id: str, status: str, kind: str = "search") -> TrialRecord:
    return TrialRecord(trial_id=trial_id, kind=kind, name=trial_id, params={}, status=status)


def test_the_line_counts_trials_and_says_where_the_running_ones_are() -> None:
    good = replace(record("trial-000", "told"), metrics={"plasticity": 6.1, "forgetting_rate": 0.2})
    far = replace(record("trial-001", "told"), metrics={"plasticity": 9.0, "forgetting_rate": 50.0})
    busy = replace(record("trial-003", "started"), reports=(Report(20, 1.0, {"model/loss": 2.0}),))
    trials = [good, far, record("trial-002", "failed"), busy, record("trial-004", "started")]
    state = SweepState(dict(SETTINGS), 0.0, {r.trial_id: r for r in trials})
    assert describe(state) == (
        "2/14 done 2 run 1 fail | best within limit: P +6.1 F +0.2 (trial-000) | running: trial-003 model 20"
    )
    state.trials |= {name: record(name, status) for name, status in (("p", "pruned"), ("q", "pruned"), ("r", "paused"))}
    assert describe(state).startswith("2/14 done 2 run 1 fail 2 stopped 1 paused | ")


def test_a_sweeps_line_comes_with_every_trial_that_ends_and_else_at_intervals() -> None:
    lines: list[str] = []
    progress = ProgressLine(lines.append, interval_s=1e9)
    state = SweepState(SETTINGS | {"num_trials": 2, "anchors": []}, 0.0, {"a": record("a", "started")})
    progress.update(state)
    progress.update(state)
    assert lines == []
    state.trials["a"] = record("a", "failed")
    progress.update(state)
    progress.update(state)
    assert len(lines) == 1 and lines[0].startswith("0/2 done 0 run 1 fail | ETA 0h00m00s")


PACE = {"step_seconds": 3.0, "clips_per_second": 4.0}  # 12 clips a step


def test_a_steps_line_says_terms_and_the_rest_of_the_stage() -> None:
    lines: list[str] = []
    say = StepLines(lines.append, interval_s=1e9)
    for step in range(1, 5):
        say(StepReport("model", step, 4, {"loss": 1.0 / step, **PACE}))
    assert lines[0] == "  model 1/4 | loss 1 | 4 clips/s | stage ends in 9 s"
    assert len(lines) == 2 and lines[1].startswith("  model 4/4 | loss 0.25 | ")


def test_pace_and_eta_are_means_over_the_stage_and_not_the_last_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now, lines = [100.0], list[str]()
    monkeypatch.setattr("sonar.search.progress.time.monotonic", lambda: now[0])
    say = StepLines(lines.append, interval_s=0.0)
    for step, seconds in ((11, 3.0), (12, 1.0), (13, 2.0)):  # resumed after ten steps
        now[0] += seconds
        say(StepReport("model", step, 23, {"step_seconds": seconds, "clips_per_second": 12.0 / seconds}))
    assert lines[-1].endswith("| 6 clips/s | stage ends in 20 s")  # 12 clips and 2 s a step


def test_stages_that_take_turns_end_after_each_others_steps_too(monkeypatch: pytest.MonkeyPatch) -> None:
    now, lines = [0.0], list[str]()
    monkeypatch.setattr("sonar.search.progress.time.monotonic", lambda: now[0])
    say = StepLines(lines.append, interval_s=0.0)
    for step in range(1, 11):
        for stage in ("tokenizer", "model"):
            now[0] += 1.0
            say(StepReport(stage, step, 20, {"step_seconds": 1.0, "clips_per_second": 8.0}))
    assert lines[-1].startswith("  model 10/20") and lines[-1].endswith("stage ends in 19 s")


def test_a_resumed_sweep_estimates_from_what_it_did_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    now, lines = [100.0], list[str]()
    monkeypatch.setattr("sonar.search.progress.time.monotonic", lambda: now[0])
    progress = ProgressLine(lines.append)
    state = SweepState(
        SETTINGS | {"num_trials": 10, "anchors": []}, 0.0, {str(n): record(str(n), "failed") for n in range(6)}
    )
    progress.update(state)
    now[0] += 50.0
    state.trials["6"] = record("6", "failed")
    progress.update(state)
    assert lines[-1].endswith("ETA 0h02m30s")  # three left at 50 s each; the six before do not count
