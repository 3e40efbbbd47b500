"""Whom to repeat, and what repeats say: pure choices, a journal cut anywhere, seeds that fail."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluated import evaluation, noisier
from fake_reevaluation import BASE, Trials, begin, reevaluate_alone, told, with_ratio
from fake_sweep import SETTINGS
from scipy import stats
from tiny import make_base

from sonar.cli.front.reeval import print_standings
from sonar.config import override, to_dict
from sonar.evaluate.bootstrap import Resampling
from sonar.evaluate.comparison import Dominance
from sonar.evaluate.noise import NOISE_FILE, Noise, axis_noise, read_noise
from sonar.evaluate.record import read_evaluation, split_folder
from sonar.evaluate.run import compare
from sonar.experiment import TrialConfig
from sonar.search.candidate_folders import Offer, write_offer
from sonar.search.journal import Event, Journal, SweepState, read_journal
from sonar.search.progress import describe
from sonar.search.records import CandidateKey, CandidateRecord, TrialRecord
from sonar.search.reevaluation import (
    Pair,
    ReevalConfig,
    Reevaluation,
    front_and_neighbours,
    next_to_repeat,
)
from sonar.search.repeats import (
    REEVAL,
    Runs,
    audited_trial,
    repeats_of,
    runs_of,
    seed_noise,
    seeded,
    values_of,
    without_keys,
)
from sonar.search.results import front, front_hypervolume, ranked_candidates, ranked_trials, write_front_csv
from sonar.search.retention import Retention, take_offers
from sonar.search.sweep_audit import describe_audit

RESAMPLING = Resampling(num=200)
CONFIG = ReevalConfig(seeds=3, resampling=RESAMPLING)
RATIOS = (0.2, 0.35, 0.5, 0.6)  # of the searched trials; the base configuration has 0.5


def run(folder: Path, config: ReevalConfig = CONFIG, **fakes: Any) -> tuple[Any, Trials]:
    """Audit and re-evaluate, or go on with it."""
    with Journal(folder / "journal.jsonl") as journal:
        trials = Trials(journal, folder)
        trials.broken = fakes.get("broken", trials.broken)
        if not journal.state.settings:
            begin(journal, folder, SETTINGS, RATIOS)
        return reevaluate_alone(trials, config, fakes.get("clock", lambda: 0.0)), trials


def of_candidate(state: SweepState, key: CandidateKey) -> Runs:
    return runs_of(state, [key])[key]


def state_of(folder: Path) -> SweepState:
    with Journal(folder / "journal.jsonl") as journal:
        return journal.state


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return folder


# Which candidates.


def made(points: dict[str, tuple[float, float]]) -> SweepState:
    records = {
        name: TrialRecord(
            trial_id=name,
            kind="search",
            name=name,
            params={},
            status="told",
            metrics={"plasticity": point[0], "forgetting_rate": point[1], "model/steps": 6.0},
        )
        for name, point in points.items()
    }
    return SweepState(settings={"objectives": SETTINGS["objectives"]}, trials=records)


def test_the_front_and_what_two_sigma_would_bring_to_it_are_repeated() -> None:
    """Sigma is 1 and 0.5. Of (10, 2), 1.9 and 0.9 behind on either axis is near, 2.1 on both is not."""
    state = made(
        {
            "front": (10.0, 2.0),
            "other": (4.0, 0.0),
            "near": (8.1, 2.5),  # 1.9 sigma behind on plasticity alone: 0.2 better were it moved
            "near-forgetting": (7.0, 2.9),  # 1.8 sigma behind on forgetting
            "far": (7.9, 3.1),  # 2.1 sigma behind on both
            "farther": (1.0, 9.0),
        }
    )
    found = front_and_neighbours(state, np.asarray([1.0, 0.5]))
    assert [key.trial_id for key in found] == ["front", "near", "near-forgetting", "other"]
    exact = front_and_neighbours(state, np.asarray([1e-9, 1e-9]))
    assert [key.trial_id for key in exact] == ["front", "other"]
    unknown = front_and_neighbours(state, np.asarray([0.0, 0.0]))  # scores too coarse to show a seed
    assert [key.trial_id for key in unknown] == sorted(state.trials)


def test_of_equal_candidates_one_of_each_trial_is_repeated() -> None:
    """Of `first` the one of fewer steps, which stands for all; of `second`, whose seeds may differ, its best."""
    state = made({"first": (10.0, 2.0), "second": (10.0, 2.0)})
    for step in (2, 4):
        key = CandidateKey("first", step, 1.0)
        state.candidates[key] = CandidateRecord(key, {"plasticity": 10.0, "forgetting_rate": 2.0}, "checkpoint")
    expected = [CandidateKey("first", 2, 1.0), CandidateKey("second", 6, 1.0)]
    assert front_and_neighbours(state, np.asarray([1.0, 0.5])) == expected


KEYS = {name: CandidateKey(name, 6, 1.0) for name in "abc"}


def pair(first: str, second: str, probable: float | None, settled: bool = False) -> Pair:
    return Pair(KEYS[first], KEYS[second], None if probable is None else Dominance(probable, 0.0), settled)


def test_of_the_pair_least_settled_the_one_with_fewer_repeats_is_next() -> None:
    pairs = [pair("a", "b", 0.9), pair("b", "c", 0.6), pair("a", "c", 0.99)]
    assert next_to_repeat(pairs, {"a": 0, "b": 1, "c": 2}, CONFIG) == "b"
    assert next_to_repeat(pairs, {"a": 0, "b": 2, "c": 1}, CONFIG) == "c"
    unknown = [*pairs, pair("a", "b", None)]
    assert next_to_repeat(unknown, {"a": 0, "b": 1, "c": 2}, CONFIG) == "a"


def test_settled_pairs_and_spent_trials_ask_for_nothing() -> None:
    pairs = [pair("a", "b", 0.6), pair("b", "c", 0.999, settled=True)]
    assert next_to_repeat(pairs, {"a": 3, "b": 2, "c": 0}, CONFIG) == "b"
    assert next_to_repeat(pairs, {"a": 2, "c": 0}, CONFIG) == "a"  # b trains nothing
    assert next_to_repeat(pairs, {"a": 3, "b": 3, "c": 0}, CONFIG) is None
    assert next_to_repeat(pairs[1:], {"b": 0, "c": 0}, CONFIG) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seeds": 1}, "seeds is 1; give 2 or more repeats"),
        ({"confidence": 1.0}, "confidence is 1.0; give a share between 0.5 and 1"),
        ({"budget_hours": 0.0}, "budget_hours is 0.0; give hours above 0"),
        (
            {"confidence": 0.999},
            "200 resamples cannot tell a probability of 0.999 over 3 looks; .* than 3000",
        ),
    ],
)
def test_settings_that_settle_nothing_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReevalConfig(**{"seeds": 3, "resampling": RESAMPLING} | given)


# What is run.


def test_repeats_are_trials_of_their_own_that_differ_in_the_seeds_alone(whole: Path) -> None:
    state = state_of(whole)
    repeats = [record for record in state.trials.values() if record.kind == REEVAL]
    assert repeats
    for record in repeats:
        assert record.of is not None and record.status == "told"
        assert record.trial_id == f"{record.of}-seed-{record.seed}"
        config = override(TrialConfig(), {"sampling.replay_ratio": RATIOS[int(record.of[-1])]})
        assert record.config == to_dict(seeded(config, record.seed or 0))


def test_the_audit_counts_as_repeats_of_the_trial_that_has_the_base_configuration(whole: Path) -> None:
    state = state_of(whole)
    assert audited_trial(state) == "trial-002"  # of the ratio 0.5
    ids = {record.trial_id for record in repeats_of(state, "trial-002")}
    assert {"audit-seed-1", "audit-seed-2", "audit-seed-3"} <= ids and "trial-002-seed-1" not in ids
    values = values_of(state, of_candidate(state, CandidateKey("trial-002", 6, 1.0)))
    noise = read_noise(whole / NOISE_FILE)
    assert values[:3, 1] == pytest.approx(noise.forgetting_rate.values)


def test_repeats_are_no_points_of_their_own(whole: Path) -> None:
    state = state_of(whole)
    alone = SweepState(
        settings=state.settings,
        trials={name: record for name, record in state.trials.items() if record.kind in ("anchor", "search")},
    )
    assert front_hypervolume(state) == front_hypervolume(alone)
    assert [r.record.trial_id for r in ranked_trials(state)] == list(alone.trials)
    assert [r.candidate.key for r in front(state)] == [r.candidate.key for r in front(alone)]


def test_the_run_that_was_selected_is_in_no_mean(whole: Path) -> None:
    state = state_of(whole)
    for key in state.candidates:
        if state.trials[key.trial_id].kind == "search" and repeats_of(state, key.trial_id):
            assert key not in of_candidate(state, key).found
    assert of_candidate(state, CandidateKey("anchor-base", 0, 1.0)).is_own


def test_the_noise_is_that_of_the_runs_by_hand(whole: Path) -> None:
    state = state_of(whole)
    groups: dict[str, list[list[float]]] = {}
    for record in state.trials.values():
        of = "trial-002" if record.kind == "audit" else record.of or record.trial_id
        if record.trial_id != "anchor-base":
            groups.setdefault(of, []).append([record.metrics["plasticity"], record.metrics["forgetting_rate"]])
    sizes = [len(group) - 1 for group in groups.values()]
    squares = sum(np.var(np.asarray(group), axis=0, ddof=0) * len(group) for group in groups.values())
    found = seed_noise(state)
    assert found is not None and found.freedom == sum(sizes)
    np.testing.assert_allclose(found.sigma**2, squares / sum(sizes))


def test_it_ends_with_every_pair_settled_or_its_seeds_spent(whole: Path) -> None:
    outcome, trials = run(whole)
    assert trials.ran == []  # all is there: nothing is repeated
    spent = {key.trial_id for key in (s.key for s in outcome.standings)}
    assert outcome.num_pairs == len(spent) * (len(spent) - 1) // 2
    state = state_of(whole)
    if outcome.num_settled < outcome.num_pairs:
        assert outcome.end_reason == "3 repeats of every trial of an open pair are spent"
    assert all(len(repeats_of(state, trial_id)) <= 3 for trial_id in spent)
    forgetting = [standing.mean[1] for standing in outcome.standings]
    assert forgetting == sorted(forgetting)


def test_means_and_intervals_hold_the_runs(whole: Path) -> None:
    outcome, _ = run(whole)
    for standing in outcome.standings:
        folders = [split_folder(whole / "trials" / key.trial_id, "dev") for key in standing.runs.found]
        runs = [compare(BASE, read_evaluation(folder)) for folder in folders]
        assert standing.mean[0] == pytest.approx(np.mean([change.plasticity for change in runs]))
        assert standing.intervals is not None
        assert standing.intervals[1].low <= standing.mean[1] <= standing.intervals[1].high


def outcome_of(path: Path) -> list[tuple[str, Any]]:
    events: list[Event] = read_journal(path / "journal.jsonl")
    return [(event.event, event.data) for event in events if event.event not in ("started", "resumed")]


def test_candidates_of_one_trial_are_settled_by_what_differs_within_each_repeat(whole: Path, tmp_path: Path) -> None:
    """Half way every run is worse on both axes by about as much, less than seeds differ."""
    folder = tmp_path / "sweep"
    shutil.copytree(whole, folder)
    state, half_way = state_of(folder), []
    for record in (state.trials["trial-000"], *repeats_of(state, "trial-000")):
        end = read_evaluation(split_folder(folder / "trials" / record.trial_id, "dev"))
        found = evaluation(*((r.name, r.role, noisier(r.predictions, 9, 0.0, -3.0)) for r in end.results))
        write_offer(Offer(3, 1.0, told(found)), folder / "trials" / record.trial_id, found)
        half_way.append(CandidateKey(record.trial_id, 3, 1.0))
        state.candidates[half_way[-1]] = CandidateRecord(half_way[-1], told(found), None)
    assert len(half_way) > 3
    keys = CandidateKey("trial-000", 6, 1.0), half_way[0]
    (pair,) = Reevaluation(folder, BASE, CONFIG).pairs(state, keys)
    assert pair.dominates is not None and pair.dominates.first > 0.9 > 0.1 > pair.dominates.second
    del state.candidates[half_way[-1]]  # a repeat that failed before it: two are left to compare
    (fewer,) = Reevaluation(folder, BASE, CONFIG).pairs(state, keys)
    assert fewer.dominates is not None and fewer.dominates != pair.dominates


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("part", range(3))
def test_cut_after_any_event_it_goes_on_as_if_it_had_not_been(whole: Path, tmp_path: Path, part: int) -> None:
    lines = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    events = read_journal(whole / "journal.jsonl")
    begun = next(number for number, event in enumerate(events) if event.data.get("kind") == "audit")
    for cut in range(begun + part, len(lines), 3):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "journal.jsonl").write_bytes(b"".join(lines[:cut]))
        shutil.copytree(whole / "trials", folder / "trials")
        run(folder)
        assert outcome_of(folder) == outcome_of(whole), f"cut after {cut} events"


def test_a_failed_seed_is_kept_as_a_failure_and_not_run_again(tmp_path: Path) -> None:
    outcome, trials = run(tmp_path, broken=lambda trial_id: trial_id.endswith("-seed-2"))
    state = state_of(tmp_path)
    failed = {t for t, record in state.trials.items() if record.status == "failed"}
    assert "audit-seed-2" in failed and len(failed) > 1 and len(trials.ran) == len(set(trials.ran))
    assert read_noise(tmp_path / NOISE_FILE).failed == {"audit-seed-2": "loss is nan"}
    listed = {name for standing in outcome.standings for name in standing.runs.failed}
    assert listed == failed
    for standing in outcome.standings:
        if standing.runs.failed and standing.dominates is not None:
            share = len(standing.runs.found) / (len(standing.runs.found) + len(standing.runs.failed))
            assert standing.dominates.first <= share
    assert run(tmp_path)[1].ran == []


def test_the_budget_in_hours_ends_it_and_a_larger_one_goes_on(tmp_path: Path, whole: Path) -> None:
    ticks = iter(range(0, 10_000, 1000))
    config = ReevalConfig(seeds=3, budget_hours=0.7, resampling=RESAMPLING)
    outcome, _ = run(tmp_path, config, clock=lambda: float(next(ticks)))
    assert outcome.end_reason == "0.83 of 0.7 hours are spent"
    assert len(state_of(tmp_path).trials) < len(state_of(whole).trials)
    run(tmp_path)
    assert outcome_of(tmp_path) == outcome_of(whole)


# What is shown of it.


def repeated(keep: bool) -> SweepState:
    """`lucky` was on the front with (10, 1); its two repeats say (4, 3) and (6, 5). `steady` has (7, 2) each time."""

    def trial(name: str, of: str | None, point: tuple[float, float], reach: float) -> TrialRecord:
        metrics = {"plasticity": point[0], "forgetting_rate": point[1], "model/steps": 6.0}
        metrics |= {"forgetting_rate_low": point[1] - reach, "forgetting_rate_high": point[1] + 2 * reach}
        return TrialRecord(
            trial_id=name,
            kind="reeval" if of else "search",
            name=name,
            params={},
            of=of,
            status="told",
            metrics=metrics,
        )

    points = {
        "lucky": (None, (10.0, 1.0)),
        "lucky-seed-1": ("lucky", (4.0, 3.0)),
        "lucky-seed-2": ("lucky", (6.0, 5.0)),
        "steady": (None, (7.0, 2.0)),
        "steady-seed-1": ("steady", (7.0, 2.0)),
        "steady-seed-2": ("steady", (7.0, 2.0)),
    }
    trials = {name: trial(name, of, point, 0.3) for name, (of, point) in points.items()}
    state = SweepState(settings={"objectives": SETTINGS["objectives"]}, trials=trials)
    if not keep:
        key = CandidateKey("steady", 6, 1.0)
        state.candidates[key] = state.candidates[key]._replace(discarded="dominated by lucky")
    return state


def test_fronts_go_by_the_means_over_repeats_not_by_the_run_that_was_lucky() -> None:
    (member,) = front(repeated(keep=True))
    assert (member.record.trial_id, member.point.plasticity, member.point.forgetting_rate) == ("steady", 7.0, 2.0)
    means = {ranked.record.trial_id: ranked.point for ranked in ranked_trials(repeated(keep=True))}
    assert (means["lucky"].plasticity, means["lucky"].forgetting_rate) == (5.0, 4.0)


def test_a_front_has_no_member_whose_weights_were_given_up() -> None:
    state = repeated(keep=False)
    state.settings |= SETTINGS
    assert [member.record.trial_id for member in front(state)] == ["lucky"]
    state.settings["forgetting_limit"] = 1000.0
    assert "best within limit: P +5.0 F +4.0 (lucky)" in describe(state)  # steady has more, and cannot be picked


def test_an_interval_of_a_mean_joins_recordings_and_seeds_by_hand() -> None:
    """Four residuals of forgetting about two means: own runs are in the noise, though in no mean."""
    state = repeated(keep=True)
    squares = (1 - 3) ** 2 + (3 - 3) ** 2 + (5 - 3) ** 2  # of lucky about its mean of 3; steady never moves
    seeds = stats.t.ppf(0.975, 4) * np.sqrt(squares / 4) / np.sqrt(2)
    (lucky,) = (r.point.forgetting_interval for r in ranked_trials(state) if r.record.trial_id == "lucky")
    assert lucky is not None
    assert lucky == pytest.approx((4.0 - np.hypot(0.3, seeds), 4.0 + np.hypot(0.6, seeds)))


def test_the_table_of_a_front_has_the_intervals_of_its_means(tmp_path: Path) -> None:
    state = repeated(keep=True)
    state.settings["forgetting_limit"] = 5.0
    (member,) = front(state)
    write_front_csv(state, tmp_path / "front.csv")
    with (tmp_path / "front.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    shown = tuple(float(row[f"forgetting_rate_{end}"]) for end in ("low", "high"))
    assert shown == member.point.forgetting_interval != (1.7, 2.6)  # of its own run


def test_what_is_known_of_repeats_is_looked_up_once_for_all_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver does so while trials run: once per candidate took seconds with 200 trials of 5 candidates."""
    looked = list[object]()

    def count(state: SweepState) -> None:
        looked.append(state)

    monkeypatch.setattr("sonar.search.repeats.audited_trial", count)
    few, many = repeated(keep=True), repeated(keep=True)
    for step in range(100):
        key = CandidateKey("steady", step + 10, 1.0)
        many.candidates[key] = many.candidates[CandidateKey("steady", 6, 1.0)]._replace(key=key)
    ranked_candidates(few)
    once = len(looked)
    ranked_candidates(many)
    assert len(looked) == 2 * once > 0


def test_a_configuration_without_keys_is_the_rest_of_it() -> None:
    config = {"a": {"b": 1, "c": {"d": 2, "e": 3}}, "b": 4}
    assert without_keys(config, ("a.b", "a.c.d")) == {"a": {"c": {"e": 3}}, "b": 4}
    assert without_keys(config, ("a", "c.d")) == {"b": 4}
    assert config["a"] == {"b": 1, "c": {"d": 2, "e": 3}}


def test_repeats_give_up_their_weights_and_keep_their_predictions(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        begin(journal, tmp_path, SETTINGS, RATIOS)
        trial = tmp_path / "trials" / "trial-000-seed-1"
        config = to_dict(with_ratio(RATIOS[0]))
        ids = {"trial_id": trial.name, "params": {}, "config": config, "of": "trial-000", "seed": 1}
        journal.append("suggested", kind=REEVAL, **ids)
        offer = Offer(3, 1.0, {"plasticity": 1.0, "forgetting_rate": 50.0})
        write_offer(offer, trial, BASE, make_base())
        take_offers(journal, trial.name, trial)
        journal.append("told", trial_id=trial.name, metrics=told(BASE), checkpoint=str(trial / "checkpoint"))
        Retention(journal, tmp_path, keep_all=True).update()
        given_up = {key.trial_id for key, c in journal.state.candidates.items() if c.discarded is not None}
    assert given_up == {trial.name}
    assert not offer.checkpoint(trial).exists() and split_folder(offer.folder(trial), "dev").is_dir()


def test_the_audit_says_sigma_and_warns_of_a_limit_that_noise_hides() -> None:
    quiet, loud = (axis_noise(np.asarray([[v] * 3 for v in values])) for values in ([20.0, 20.1], [3.0, 9.0]))
    lines = describe_audit(Noise(quiet, loud, ("a", "b"), {"c": "loss is nan"}), limit=5.0)
    assert lines[0].startswith("noise of one run over 2 seeds: sigma of plasticity 0.071 %, of forgetting 4.2 %")
    assert lines[1] == "c failed and is not in sigma: loss is nan"
    assert lines[2].startswith("warning: the forgetting limit: forgetting rate: 5 % is not far enough above the noise")
    assert lines[3].startswith("warning: what the base configuration changes: forgetting rate: 6 %")
    assert len(describe_audit(Noise(quiet, quiet, ("a", "b"), {}), limit=5.0)) == 1
    still = axis_noise(np.asarray([[0.0] * 3] * 2))
    lines = describe_audit(Noise(still, quiet, ("a", "b"), {}), limit=5.0)
    assert "no seed changed plasticity: its noise is not 0 but" in lines[1]


def test_the_table_has_means_counts_rivals_and_every_failed_seed(tmp_path: Path, capsys: Any) -> None:
    outcome, _ = run(tmp_path, broken=lambda trial_id: trial_id == "audit-seed-2")
    print_standings(outcome.standings)
    shown = capsys.readouterr().out
    for standing in outcome.standings:
        assert f"{standing.key.trial_id} step {standing.key.step}" in shown
        assert f"{standing.mean[1]:+.1f}" in shown
    assert "own run only" in shown  # the base, which no seed changes
    if any(standing.runs.failed for standing in outcome.standings):
        assert "1 failed" in shown
        assert "audit-seed-2 failed, is in no mean, and counts as a run that dominates nothing: loss is nan" in shown
