"""What a sweep's state says, against brute force and the journal's own numbers."""

import csv
import math
from itertools import pairwise
from pathlib import Path

import pytest
from fake_sweep import SETTINGS, write_finished
from hypothesis import given
from hypothesis import strategies as st

from sonar.search.dominance import hypervolume
from sonar.search.journal import SweepState, TrialRecord
from sonar.search.results import Choice, front, front_hypervolume, pick, picked_id, ranked_trials, write_trials_csv

values = st.integers(-4, 4).map(float)


def record(number: int, plasticity: float, forgetting: float, **fields: object) -> TrialRecord:
    plain = {
        "trial_id": f"t{number:02d}",
        "kind": "search",
        "name": f"t{number:02d}",
        "params": {},
        "status": "told",
        "metrics": {"plasticity": plasticity, "forgetting_rate": forgetting, "forgetting_worst": forgetting},
    }
    return TrialRecord(**plain | fields)


def sweep(*records: TrialRecord) -> SweepState:
    return SweepState(
        settings=SETTINGS | {"anchors": []}, created_s=0.0, trials={record.trial_id: record for record in records}
    )


@st.composite
def states(draw: st.DrawFn) -> SweepState:
    """Told trials of few different values, failed and running ones among them."""
    records = []
    for number, (plasticity, forgetting) in enumerate(draw(st.lists(st.tuples(values, values), max_size=12))):
        status = draw(st.sampled_from(["told", "told", "told", "failed", "started"]))
        records.append(record(number, plasticity, forgetting, status=status))
    return sweep(*records)


def points(state: SweepState) -> dict[str, tuple[float, float]]:
    return {
        name: (r.metrics["plasticity"], r.metrics["forgetting_rate"])
        for name, r in state.trials.items()
        if r.status == "told"
    }


def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] >= b[0] and a[1] <= b[1] and a != b


@given(states())
def test_the_front_is_what_no_told_trial_dominates(state: SweepState) -> None:
    told = points(state)
    best = {name for name, point in told.items() if not any(dominates(other, point) for other in told.values())}
    first = {told[name]: name for name in sorted(best, reverse=True)}  # of equal ones one stands for all
    assert {ranked.record.trial_id for ranked in front(state)} == set(first.values())


@given(states())
def test_only_told_trials_have_ranks_and_a_dominated_one_a_higher_one(state: SweepState) -> None:
    ranked = ranked_trials(state)
    told = points(state)
    assert [r.record.trial_id for r in ranked] == sorted(told)
    for a in ranked:
        assert tuple(a.point[1:3]) == told[a.record.trial_id]
        assert all(a.rank < b.rank for b in ranked if dominates(a.point[1:3], b.point[1:3]))  # type: ignore[arg-type]


@given(states(), values)
def test_the_pick_is_the_most_plastic_trial_within_the_limit(state: SweepState, limit: float) -> None:
    within = {name: point for name, point in points(state).items() if point[1] <= limit}
    if not within:
        with pytest.raises(ValueError, match=f"no point forgets at most {limit:g} %|there are no points"):
            pick(state, Choice(limit=limit))
        return
    chosen, _ = pick(state, Choice(limit=limit))
    best = max(point[0] for point in within.values())
    assert within[chosen.record.trial_id] == (best, min(point[1] for point in within.values() if point[0] == best))


@given(states())
def test_without_a_limit_the_sweeps_own_one_counts(state: SweepState) -> None:
    state.settings["forgetting_limit"] = 1.0
    chosen = picked_id(state)
    assert (chosen is None) == (not any(point[1] <= 1.0 for point in points(state).values()))
    if chosen is not None:
        assert pick(state, Choice(limit=1.0))[0].record.trial_id == chosen


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice("best"), "no pick rule is called 'best'; there are epsilon, knee, weights, contribution"),
        (Choice("knee", limit=1.0), "a limit belongs to the rule epsilon, not to knee"),
        (Choice("weights"), "the rule weights, which needs one"),
        (Choice("epsilon", weight=1.0), "a weight belongs to the rule weights"),
        (Choice("contribution"), "no anchor has ended, so the hypervolume has no reference"),
        (Choice("knee"), "the front has 1 different points; a knee needs 5"),
    ],
)
def test_a_choice_that_is_none_says_what_is_one(choice: Choice, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pick(sweep(record(0, 1.0, 1.0)), choice)


@pytest.mark.parametrize("choice", [Choice("weights", weight=0.5), Choice("contribution")])
def test_every_rule_picks_from_the_same_front(choice: Choice, finished: SweepState) -> None:
    ranked, chosen = pick(finished, choice)
    assert ranked == front(finished)[chosen.index] and repr(ranked.point.name) in chosen.explanation


def test_the_hypervolume_waits_for_every_anchor_and_is_that_of_the_closed_form() -> None:
    base = record(0, 0.0, 0.0, kind="anchor")
    dcpt = record(1, 4.0, 10.0, kind="anchor")
    running = record(1, 4.0, 10.0, kind="anchor", status="started")
    trial = record(2, 3.0, 2.0)
    assert front_hypervolume(sweep()) is None
    assert front_hypervolume(sweep(trial)) is None
    assert front_hypervolume(sweep(base, running, trial)) is None
    # Against (-1, 11): base 1 x 11; the trial adds 3 x 9, DCPT 1 x 1.
    assert front_hypervolume(sweep(base, dcpt, trial)) == pytest.approx(11 + 27 + 1)
    failed = record(1, 0.0, 0.0, kind="anchor", status="failed")
    assert front_hypervolume(sweep(base, failed, trial)) is None  # against base alone it would not compare
    waiting = sweep(base, dcpt, trial)
    waiting.settings["anchors"] = ["base", "dcpt", "dcpt-cold"]
    assert front_hypervolume(waiting) is None


@given(states())
def test_the_hypervolume_only_grows(state: SweepState) -> None:
    anchors = [record(50, 0.0, 0.0, kind="anchor"), record(51, 1.0, 3.0, kind="anchor")]
    told = [r for r in state.trials.values() if r.status == "told"]
    volumes = [front_hypervolume(sweep(*anchors, *told[:count])) for count in range(len(told) + 1)]
    assert None not in volumes
    assert all(b >= a - 1e-9 for a, b in pairwise(volumes))  # type: ignore[operator]
    corner = (-1.0, 4.0)
    every = [(0.0, 0.0), (1.0, 3.0), *points(sweep(*told)).values()]
    assert volumes[-1] == pytest.approx(hypervolume(every, ("max", "min"), corner))


@pytest.fixture
def finished(tmp_path: Path) -> SweepState:
    return write_finished(tmp_path / "bio")


def test_the_table_has_the_journals_numbers_to_the_last_digit(finished: SweepState, tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    write_trials_csv(finished, path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = {row["trial_id"]: row for row in csv.DictReader(file)}
    assert list(rows) == sorted(finished.trials)
    ranks = {ranked.record.trial_id: ranked.rank for ranked in ranked_trials(finished)}
    for trial_id, record in finished.trials.items():
        row = rows[trial_id]
        assert (row["kind"], row["status"], row["reason"]) == (record.kind, record.status, record.reason or "")
        assert row["pareto_rank"] == ("" if record.status == "failed" else str(ranks[trial_id]))
        for name, value in record.metrics.items():
            assert float(row[name]) == value
        for key, value in record.params.items():
            assert row[key] == str(value)
    assert rows["trial-002"]["plasticity"] == "" and rows["trial-002"]["reason"] == "plasticity is nan"


def test_the_made_up_sweep_has_a_front_of_several_points(finished: SweepState) -> None:
    assert len(front(finished)) >= 3
    assert math.isfinite(front_hypervolume(finished) or math.nan)
    assert picked_id(finished) is not None
