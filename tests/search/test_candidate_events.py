"""Candidates in the journal: each is there once, is given up once, and outlives its trial."""

import math
from pathlib import Path
from typing import Any

import pytest
from test_journal import CREATED, METRICS, path, write_sweep

from sonar.search.journal import Journal, JournalError, read_journal, replay
from sonar.search.records import CandidateKey

__all__ = ["path", "write_sweep"]
POINT: dict[str, Any] = {"step": 40, "alpha": 1.0, "metrics": METRICS, "checkpoint": "t4/c40"}


@pytest.fixture
def journal(path: Path) -> Any:
    with Journal(path) as opened:
        opened.append("suggested", trial_id="t4", kind="search", params={})
        opened.append("candidate", trial_id="t4", **POINT)
        yield opened


def test_a_told_trial_is_a_candidate_also_in_a_journal_that_knows_no_such_event(path: Path) -> None:
    candidates = replay(read_journal(path)).candidates
    assert list(candidates) == [CandidateKey("t0", 0, 1.0), CandidateKey("t1", 0, 1.0)]
    told = candidates[CandidateKey("t1", 0, 1.0)]
    assert (told.metrics, told.checkpoint, told.discarded) == (METRICS, "t1/final", None)


def test_a_candidate_is_kept_and_given_up_and_reading_the_file_says_the_same(journal: Journal) -> None:
    key = CandidateKey("t4", 40, 1.0)
    assert journal.state.candidates[key] == (key, METRICS, "t4/c40", None)
    journal.append("told", trial_id="t4", metrics={**METRICS, "model/steps": 60}, checkpoint="t4/final")
    journal.append("discarded", trial_id="t4", step=40, alpha=1.0, reason="dominated by 't1'")  # after the end
    assert journal.state.candidates[key].discarded == "dominated by 't1'"
    assert journal.state.candidates[CandidateKey("t4", 60, 1.0)].checkpoint == "t4/final"
    assert journal.state.trials["t4"].status == "told"
    assert replay(read_journal(journal.path)).candidates == journal.state.candidates


@pytest.mark.parametrize(
    ("event", "data", "message"),
    [
        ("candidate", {"trial_id": "t4", **POINT}, "step 40 of trial 't4' at alpha 1 is there already"),
        ("candidate", {"trial_id": "t4", **POINT, "alpha": 1.5}, r"alpha must lie in \[0, 1\]"),
        ("candidate", {"trial_id": "t1", **POINT}, r"trial 't1' has already ended \(told\)"),
        ("candidate", {"trial_id": "t9", **POINT}, "trial 't9' was never suggested"),
        ("discarded", {"trial_id": "t4", "step": 41, "alpha": 1.0, "reason": "x"}, "is no candidate$"),
    ],
)
def test_what_contradicts_the_candidates_is_refused(
    journal: Journal, event: str, data: dict[str, Any], message: str
) -> None:
    before = journal.path.read_bytes()
    with pytest.raises(JournalError, match=message):
        journal.append(event, **data)
    assert journal.path.read_bytes() == before


def test_a_candidate_is_given_up_once(journal: Journal) -> None:
    journal.append("discarded", trial_id="t4", step=40, alpha=1.0, reason="x")
    with pytest.raises(JournalError, match="is no candidate any more"):
        journal.append("discarded", trial_id="t4", step=40, alpha=1.0, reason="x")


def test_no_non_finite_or_missing_objective_becomes_a_candidate(journal: Journal) -> None:
    for metrics, message in (
        ({**METRICS, "plasticity": math.nan}, "candidate: trial 't4': plasticity is 'nan'; allowed: a finite number"),
        ({"plasticity": 1.0}, "candidate: trial 't4' lacks the objective forgetting_rate$"),
    ):
        with pytest.raises(ValueError, match=message):
            journal.append("candidate", trial_id="t4", **{**POINT, "step": 41, "metrics": metrics})
    assert set(CREATED["objectives"]) <= journal.state.candidates[CandidateKey("t4", 40, 1.0)].metrics.keys()
